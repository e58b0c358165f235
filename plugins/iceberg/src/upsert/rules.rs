//! The keys `deletes` and `truncate`, understood.

use crate::config::{Config, Deletes, Mode, Truncate};

/// How changes are applied to tables.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Deleted rows stay, and say so.
    pub(crate) soft: bool,
    pub(crate) truncate: Truncate,
}

impl Rules {
    /// Reads the keys; `None` in mode append.
    ///
    /// # Errors
    /// Every fault, each beginning with the path of its key.
    pub(crate) fn parse(config: &Config) -> Result<Option<Self>, Vec<String>> {
        let mut faults = Vec::new();
        if config.mode == Mode::Append {
            let used = [("deletes", config.deletes.is_some()), ("truncate", config.truncate.is_some())];
            for (key, _) in used.into_iter().filter(|(_, used)| *used) {
                faults.push(format!("{key}: needs mode: upsert; in an append table every change is a row"));
            }
            return if faults.is_empty() { Ok(None) } else { Err(faults) };
        }
        let soft = config.deletes == Some(Deletes::Soft);
        let truncate = config.truncate.unwrap_or(if soft { Truncate::Fail } else { Truncate::Apply });
        if soft && truncate == Truncate::Apply {
            faults.push(
                "truncate: apply would remove rows that deletes: soft keeps; allowed with it are fail and ignore"
                    .to_owned(),
            );
        }
        if faults.is_empty() { Ok(Some(Self { soft, truncate })) } else { Err(faults) }
    }
}
