//! Between which values the keys of a table lie, column by column.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use iceberg::spec::{DataFile, Datum, PrimitiveType};
use philotes_sdk::Result;

use super::failed;
use crate::lookup;

/// Where the values of one column lie. Values are in Arrow's row format, whose bytes have their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// There is none.
    Nothing,
    /// Between these, both included.
    Between(Vec<u8>, Vec<u8>),
    /// Anywhere.
    Anything,
}

impl Bounds {
    /// Widens them by these values.
    pub(super) fn take_in(&mut self, column: &ArrayRef) -> Result<()> {
        if *self == Self::Anything || column.is_empty() {
            return Ok(());
        }
        let rows = converter(column.data_type())?.convert_columns(std::slice::from_ref(column)).map_err(failed)?;
        if let (Some(least), Some(greatest)) = (rows.iter().min(), rows.iter().max()) {
            self.widen(least.data(), greatest.data());
        }
        Ok(())
    }

    /// Widens them by what a manifest tells of a column in a file.
    pub(super) fn take_in_file(&mut self, file: &DataFile, id: i32, kind: &DataType) -> Result<()> {
        let told = |bounds: &HashMap<i32, Datum>| array(bounds.get(&id)?, kind);
        let (Some(lower), Some(upper)) = (told(file.lower_bounds()), told(file.upper_bounds())) else {
            *self = Self::Anything;
            return Ok(());
        };
        self.take_in(&lower)?;
        self.take_in(&upper)
    }

    fn widen(&mut self, least: &[u8], greatest: &[u8]) {
        match self {
            Self::Nothing => *self = Self::Between(least.to_vec(), greatest.to_vec()),
            Self::Between(lower, upper) => {
                if least < lower.as_slice() {
                    *lower = least.to_vec();
                }
                if greatest > upper.as_slice() {
                    *upper = greatest.to_vec();
                }
            }
            Self::Anything => {}
        }
    }

    /// Keeps what lies within them.
    pub(super) fn keep(&self, column: &ArrayRef, within: &mut [bool]) -> Result<()> {
        let (lower, upper) = match self {
            Self::Anything => return Ok(()),
            Self::Nothing => {
                within.fill(false);
                return Ok(());
            }
            Self::Between(lower, upper) => (lower.as_slice(), upper.as_slice()),
        };
        let rows = converter(column.data_type())?.convert_columns(std::slice::from_ref(column)).map_err(failed)?;
        for (row, within) in rows.iter().zip(within) {
            *within &= lower <= row.data() && row.data() <= upper;
        }
        Ok(())
    }
}

fn converter(kind: &DataType) -> Result<RowConverter> {
    RowConverter::new(vec![SortField::new(kind.clone())]).map_err(failed)
}

/// A bound as a value of the column's present type, whichever it was written with; `None` where it bounds nothing that is
/// compared by these bytes, as that of a uuid, about whose order readers and writers do not agree.
fn array(bound: &Datum, kind: &DataType) -> Option<ArrayRef> {
    if *bound.data_type() == PrimitiveType::Uuid {
        return None;
    }
    lookup::array_of(bound.literal(), kind)
}
