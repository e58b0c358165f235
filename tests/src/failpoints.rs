//! The failpoints of host and plugins: one list, which the chaos tests iterate over and docs/DELIVERY.md shows.

use std::fmt::Write;

/// A place on the way of a row where a test lets something happen.
#[derive(Debug, PartialEq, Eq)]
pub struct Failpoint {
    /// As `FAILPOINTS` names it.
    pub name: &'static str,
    /// Where it is passed.
    pub place: &'static str,
    /// What exists when the process dies there.
    pub left: &'static str,
    /// Why nothing is lost or doubled.
    pub safe: &'static str,
    /// It is passed when a stream is announced, so that only a start on a table that is there already tells anything.
    pub at_start: bool,
}

/// All of them, in the order in which a row passes them.
pub const FAILPOINTS: [Failpoint; 19] = [
    Failpoint {
        name: "token.unread",
        place: "iceberg: a stream was announced, its table is not loaded yet",
        left: "what the runs before have left",
        safe: "nothing was written by this run",
        at_start: true,
    },
    Failpoint {
        name: "token.read",
        place: "iceberg: the table is loaded, its tokens were compared with nothing yet",
        left: "the same; the offset has not reached the source",
        safe: "no row of a stream is read before the source was told its offset",
        at_start: true,
    },
    Failpoint {
        name: "batch.decoded",
        place: "postgres-buffer: a batch is decoded, not listed yet",
        left: "nothing",
        safe: "the rows are unprocessed in the buffer and are read again",
        at_start: false,
    },
    Failpoint {
        name: "batch.listed",
        place: "postgres-buffer: the batch is listed in philotes.batches, the host has not seen it",
        left: "a list that no table names",
        safe: "the rows are read again under a new epoch; the list marks nothing, and goes with a later acknowledgement",
        at_start: false,
    },
    Failpoint {
        name: "host.polled",
        place: "host: a poll has brought a batch, not queued yet",
        left: "the same",
        safe: "the same",
        at_start: false,
    },
    Failpoint {
        name: "schema.altered",
        place: "iceberg: the catalog has answered to altering the table for rows at hand, nothing was concluded from it",
        left: "a table that was altered, or was not; the rows before are in it where names are followed",
        safe: "the rows at hand are read again, and find the table altered or alter it; none of an older schema comes after them",
        at_start: false,
    },
    Failpoint {
        name: "file.stored",
        place: "iceberg: a data file is in the storage",
        left: "a data file in no snapshot",
        safe: "readers see snapshots only; the rows are read again into other files, or after an error the same file is stored again",
        at_start: false,
    },
    Failpoint {
        name: "letters.stored",
        place: "iceberg: a file with dead letters is in the storage, the commit that names it is not proposed",
        left: "data files and a file with dead letters in no snapshot",
        safe: "the same",
        at_start: false,
    },
    Failpoint {
        name: "commit.proposed",
        place: "iceberg: manifests are written, the commit is not sent",
        left: "data files and manifests in no snapshot",
        safe: "the same; after an error the payload is proposed again",
        at_start: false,
    },
    Failpoint {
        name: "commit.sent",
        place: "iceberg: the catalog has begun to answer (REST) or its row has moved (SQLite); the answer is not read",
        left: "a commit that nobody here knows of",
        safe: "the table is loaded first: the token names the batch, or after an error the snapshot is found by its commit id",
        at_start: false,
    },
    Failpoint {
        name: "commit.answered",
        place: "iceberg: the answer was read, nothing was concluded from it",
        left: "the same",
        safe: "the same",
        at_start: false,
    },
    Failpoint {
        name: "letters.unsent",
        place: "iceberg: the commit with the intent is done, the dead letters are not appended",
        left: "rows and their offset in the table, and an intent that names the file with the dead letters",
        safe: "whoever loads the table next, or flushes it again, completes the intent before its next commit",
        at_start: false,
    },
    Failpoint {
        name: "letters.appended",
        place: "iceberg: the catalog has answered to appending the dead letters, nothing was concluded from it",
        left: "the same, and the dead letters in their table, with the intent's number",
        safe: "the number tells that the intent is completed",
        at_start: false,
    },
    Failpoint {
        name: "expiry.unsent",
        place: "iceberg: the table was loaded after a commit and an expiry of snapshots planned on it, which is not sent",
        left: "rows and their offset in the table",
        safe: "the next expiry plans anew",
        at_start: false,
    },
    Failpoint {
        name: "expiry.answered",
        place: "iceberg: the catalog has answered to an expiry, nothing was concluded from it",
        left: "the same, without the snapshots that expired; a record of them in the table, and their files",
        safe: "whoever looks after the table next finds the record, and reads what the expiry replaced; until then no file goes",
        at_start: false,
    },
    Failpoint {
        name: "expiry.uncleaned",
        place: "iceberg: nobody held what has expired, and its files are about to be removed",
        left: "the same",
        safe: "the same; files that are gone already are not missed",
        at_start: false,
    },
    Failpoint {
        name: "host.durable",
        place: "host: the sink has reported durable offsets, the source does not know",
        left: "rows in the table, unprocessed in the buffer",
        safe: "`resume` acknowledges what the token covers, by the lists, before the stream is read",
        at_start: false,
    },
    Failpoint {
        name: "acknowledgement.unsent",
        place: "postgres-buffer: an acknowledgement is about to be sent",
        left: "the same",
        safe: "the same",
        at_start: false,
    },
    Failpoint {
        name: "acknowledgement.done",
        place: "postgres-buffer: the acknowledgement is committed",
        left: "rows in the table, processed in the buffer",
        safe: "acknowledging once more changes nothing: the rows and their lists are done with",
        at_start: false,
    },
];

/// Those of the Kafka source, in the order in which a partition passes them. The chaos of the buffer does not come here.
pub const KAFKA_FAILPOINTS: [Failpoint; 4] = [
    Failpoint {
        name: "kafka.assigned",
        place: "kafka: the group has assigned partitions, the host has not heard of them",
        left: "what the owners before have left",
        safe: "nothing was read of them",
        at_start: true,
    },
    Failpoint {
        name: "kafka.begun",
        place: "kafka: partitions are begun behind the table's offsets, nothing is read of them",
        left: "the same",
        safe: "the same",
        at_start: true,
    },
    Failpoint {
        name: "kafka.proved",
        place: "kafka: a batch is decoded, and its topic still the same; the host has not seen it",
        left: "nothing",
        safe: "the messages are read again, behind the table's offset",
        at_start: false,
    },
    Failpoint {
        name: "kafka.revoked",
        place: "kafka: what was revoked is flushed, the group does not know",
        left: "rows and their offsets in the table",
        safe: "the next owner begins behind them, once the group has given this member up",
        at_start: true,
    },
];

/// The lines of the document between which the table stands.
const BEGIN: &str = "<!-- failpoints: written by `chaos --write-docs` -->\n";
const END: &str = "<!-- end of failpoints -->\n";

/// The document with the table as the list has it now; `None` where the marks are missing.
#[must_use]
pub fn documented(document: &str) -> Option<String> {
    let (head, rest) = document.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{}{END}{tail}", table()))
}

fn table() -> String {
    let mut table =
        "| failpoint | where | what is left if the process dies there | why nothing is lost or doubled |\n|---|---|---|---|\n"
            .to_owned();
    for Failpoint { name, place, left, safe, .. } in FAILPOINTS.iter().chain(&KAFKA_FAILPOINTS) {
        let _ = writeln!(table, "| `{name}` | {place} | {left} | {safe} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::target;

    #[test]
    fn the_document_is_up_to_date() {
        let document = std::fs::read_to_string(target::repository().join("docs/DELIVERY.md")).unwrap();
        assert!(documented(&document).unwrap() == document, "out of date; `target/debug/chaos --write-docs` writes it");
    }

    #[test]
    fn the_list_is_what_the_code_has() {
        let mut found = BTreeSet::new();
        for folder in ["host/src", "plugins/iceberg/src", "plugins/postgres-buffer/src", "plugins/kafka/src"] {
            find(&target::repository().join(folder), &mut found);
        }
        let listed = FAILPOINTS.iter().chain(&KAFKA_FAILPOINTS).map(|point| point.name.to_owned());
        assert_eq!(found, listed.collect());
    }

    fn find(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                find(&path, found);
            } else {
                let code = std::fs::read_to_string(&path).unwrap();
                let names = code.split("failpoint!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
}
