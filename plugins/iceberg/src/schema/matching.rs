//! Which field of a table each column of a batch is: by the source's numbers where it gives any and they are followed, else
//! by name. Top level only; what is nested has no numbers.

use std::collections::BTreeSet;

use arrow::datatypes::{Field, Fields};
use iceberg::spec::{NestedField, NestedFieldRef};
use philotes_sdk::{Error, Result};

use super::numbers::Numbers;
use super::{evolve, position, type_name};

/// The index among `table`'s fields of each incoming column, by name; `None` where there is none.
pub(super) fn by_name(table: &[NestedFieldRef], incoming: &Fields) -> Result<Vec<Option<usize>>> {
    incoming.iter().map(|field| position(table.iter().map(|f| f.name.as_str()), field.name(), "")).collect()
}

/// What is known for matching by number.
pub(super) struct ByNumber<'a> {
    pub(super) table: &'a [NestedFieldRef],
    pub(super) incoming: &'a Fields,
    /// The numbers of the incoming columns.
    pub(super) numbers: &'a [Option<u32>],
    pub(super) known: &'a Numbers,
    /// Fields whose column is gone from the source and that go with it.
    pub(super) leaving: &'a BTreeSet<i32>,
    /// Whether fields take the names of their columns.
    pub(super) renames: bool,
}

impl ByNumber<'_> {
    /// As [`by_name`], but a column whose number is that of a field is this field, whatever their names are.
    ///
    /// # Errors
    /// Data: a column was renamed onto a name that another field of the table keeps, whose type it does not fit.
    pub(super) fn targets(&self) -> Result<Vec<Option<usize>>> {
        let mut targets: Vec<Option<usize>> = vec![None; self.incoming.len()];
        for (index, number) in self.numbers.iter().enumerate() {
            let field = number.and_then(|number| self.known.field(number));
            let at = field.and_then(|id| self.table.iter().position(|f| f.id == id));
            targets[index] = at.filter(|at| !targets.contains(&Some(*at)));
        }
        // One column that falls back to its name sets free the name of another field, on which the next may fall back.
        while self.renames && self.fall_back(&mut targets)? {}
        for (index, field) in self.incoming.iter().enumerate() {
            if targets[index].is_some() {
                continue;
            }
            // A column that was dropped and added again under its name is another one, whether a batch came in between or not.
            let stays = |at: &usize| !targets.contains(&Some(*at)) && !self.leaving.contains(&self.table[*at].id);
            let free: Vec<usize> = (0..self.table.len()).filter(stays).collect();
            let found = position(free.iter().map(|at| self.table[*at].name.as_str()), field.name(), "")?;
            targets[index] = found.map(|found| free[found]);
        }
        Ok(targets)
    }

    /// Lets one column that was renamed onto the name of a field that stays be that field. Whether there was one.
    fn fall_back(&self, targets: &mut [Option<usize>]) -> Result<bool> {
        for (index, field) in self.incoming.iter().enumerate() {
            let Some(at) = targets[index].filter(|at| renamed(&self.table[*at], field)) else { continue };
            let stays = self.table.iter().enumerate().find(|(other, candidate)| {
                !targets.contains(&Some(*other)) && !self.leaving.contains(&candidate.id) && !renamed(candidate, field)
            });
            let Some((other, stays)) = stays else { continue };
            if !evolve::goes_on(stays, field) {
                return Err(Error::data(format!(
                    "column {:?} was renamed to {:?} at the source, and the table has another column {:?} of type {}, which \
                     {} does not fit; rename one of them, or give the column another name by `columns`",
                    self.table[at].name,
                    field.name(),
                    stays.name,
                    type_name(&stays.field_type),
                    evolve::incoming_type(field),
                )));
            }
            targets[index] = Some(other);
            return Ok(true);
        }
        Ok(false)
    }
}

/// Whether a field's column has another name. Case does not count: a table that somebody else made may spell it another way.
pub(super) fn renamed(field: &NestedField, incoming: &Field) -> bool {
    field.name.to_lowercase() != incoming.name().to_lowercase()
}
