//! Finds the rows of a batch that cannot be written: by halves, so that one bad row among many costs few looks.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use philotes_sdk::{Error, ErrorKind, Result};

/// A batch, sifted.
#[derive(Debug)]
pub(crate) struct Sifted {
    /// What the other rows became, in their order; `None` where there are none.
    pub(crate) good: Option<RecordBatch>,
    /// The rows that cannot be written, and why.
    pub(crate) bad: Vec<(usize, Error)>,
}

impl Sifted {
    /// Every row is bad, for one and the same reason.
    pub(crate) fn nothing_of(rows: usize, error: &Error) -> Self {
        let bad = (0..rows).map(|row| (row, Error::new(error.kind(), error.to_string()))).collect();
        Self { good: None, bad }
    }
}

/// Sifts a batch by what takes rows or refuses them with an error of kind Data.
///
/// # Errors
/// The first error of any other kind.
pub(crate) fn sift(rows: &RecordBatch, take: impl Fn(&RecordBatch) -> Result<RecordBatch>) -> Result<Sifted> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    // The next part is on top.
    let mut parts: Vec<Range<usize>> = Vec::new();
    parts.extend((rows.num_rows() > 0).then_some(0..rows.num_rows()));
    while let Some(part) = parts.pop() {
        match take(&rows.slice(part.start, part.len())) {
            Ok(taken) => good.push(taken),
            Err(error) if error.kind() != ErrorKind::Data => return Err(error),
            Err(error) if part.len() <= 1 => bad.push((part.start, error)),
            Err(_) => {
                let middle = part.start + part.len() / 2;
                parts.extend([middle..part.end, part.start..middle]);
            }
        }
    }
    let good = match good.first() {
        None => None,
        Some(first) => {
            let together = concat_batches(&first.schema(), &good);
            Some(together.map_err(|e| Error::internal("parts of a batch do not go together").with_source(e))?)
        }
    };
    Ok(Sifted { good, bad })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(numbers: Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef)]).unwrap()
    }

    fn numbers(rows: &RecordBatch) -> Vec<i64> {
        rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn only_bad_rows_go() {
        for bad in [&[][..], &[0], &[99], &[3, 4, 50], &(0..100).collect::<Vec<_>>()] {
            let looks = Cell::new(0);
            let take = |rows: &RecordBatch| {
                looks.set(looks.get() + 1);
                match numbers(rows).iter().find(|number| bad.contains(number)) {
                    Some(number) => Err(Error::data(format!("not {number}"))),
                    None => Ok(rows.clone()),
                }
            };
            let sifted = sift(&rows(0..100), take).unwrap();
            let found: Vec<i64> = sifted.bad.iter().map(|(row, _)| *row as i64).collect();
            assert_eq!(found, bad);
            assert!(sifted.bad.iter().all(|(row, error)| error.to_string().contains(&format!("not {row}"))));
            let expected: Vec<i64> = (0..100).filter(|number| !bad.contains(number)).collect();
            assert_eq!(sifted.good.map_or(Vec::new(), |good| numbers(&good)), expected);
            assert!(looks.get() <= 1 + 16 * bad.len(), "{} looks for {} rows", looks.get(), bad.len());
        }
    }

    #[test]
    fn other_errors_end_it() {
        let error = sift(&rows(0..4), |_| Err(Error::internal("a bug"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
