//! Which columns are worth a dictionary: learnt from the files that were written.
//!
//! Parquet begins every column with a dictionary and gives it up once that is larger than a page, which for columns of values of their
//! own (ids, texts) is soon, in every row group anew. Looking each value up until then costs more than all else there is to encoding.
//! So a column of which more pages were written without a dictionary than with one gets none in the files that follow, until
//! it is tried again.

use std::collections::HashSet;

use parquet::basic::{Encoding, PageType};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;

/// After so many files all columns are tried again: what they hold may have changed.
const TRIED_AGAIN: u32 = 64;

/// What was learnt of a table's columns.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    useless: HashSet<ColumnPath>,
    files: u32,
}

impl Dictionaries {
    /// Leaves dictionaries out where they were useless.
    pub(super) fn apply(&self, properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let leave_out = |properties: WriterPropertiesBuilder, path: &ColumnPath| {
            properties.set_column_dictionary_enabled(path.clone(), false)
        };
        self.useless.iter().fold(properties, leave_out)
    }

    /// A file was written. Whether something is new.
    pub(super) fn learn(&mut self, file: &ParquetMetaData) -> bool {
        self.files += 1;
        if self.files.is_multiple_of(TRIED_AGAIN) && !self.useless.is_empty() {
            self.useless.clear();
            return true;
        }
        let columns = file.row_groups().iter().flat_map(|group| group.columns());
        let useless = columns.filter(|column| is_useless(column)).map(|column| column.column_path().clone());
        let before = self.useless.len();
        self.useless.extend(useless);
        self.useless.len() > before
    }
}

/// Whether there is a dictionary, and fewer pages with it than without.
fn is_useless(column: &ColumnChunkMetaData) -> bool {
    let pages = |wanted: fn(Encoding) -> bool| {
        let stats = column.page_encoding_stats().into_iter().flatten();
        let data = stats.filter(|page| matches!(page.page_type, PageType::DATA_PAGE | PageType::DATA_PAGE_V2));
        data.filter(|page| wanted(page.encoding)).map(|page| i64::from(page.count)).sum::<i64>()
    };
    let with = pages(|encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY));
    column.dictionary_page_offset().is_some() && pages(|encoding| encoding == Encoding::PLAIN) > with
}
