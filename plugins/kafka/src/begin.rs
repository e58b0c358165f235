//! Where a partition is begun: at the table's offset, whatever the group says; and what must not be begun at all.

use philotes_sdk::{Error, Result, StreamPartition};

use crate::config::AutoOffsetReset;
use crate::offset::{GroupMark, Lineage, TableOffset};

/// What the cluster says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) lineage: Lineage,
    /// The first message that is left.
    pub(crate) first: i64,
    /// The next message to come.
    pub(crate) end: i64,
    /// What the group has committed, if this source did it for this topic.
    pub(crate) committed: Option<(i64, GroupMark)>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At this message.
    At(i64),
    /// At the end as it is now, which has to be written down first.
    End,
    /// As [`At`](Self::At), although rows of the partition were in a table before.
    Anew(i64),
}

/// Where to begin, going by what the table holds.
///
/// # Errors
/// Config where the table's offset is of another topic, where messages behind it are gone, and where nothing says where to begin.
pub(crate) fn begin(
    at: &StreamPartition,
    known: &Known,
    table: Option<&TableOffset>,
    reset: AutoOffsetReset,
) -> Result<Begin> {
    if let Some(table) = table {
        same_topic(at, known, table)?;
    }
    let table = table.map(|table| table.offset);
    let (mut next, mut known_gap) = (table.map(|table| table + 1), false);
    if let Some((committed, mark)) = &known.committed
        && mark.table == table
        && next.is_none_or(|next| *committed >= next)
    {
        (next, known_gap) = (Some(*committed), true);
    }
    match next {
        Some(next) if next > known.end => Err(beyond(at, known, next)),
        Some(next) if next >= known.first => Ok(Begin::At(next)),
        // Nothing of it was ever in a table, and the connector takes what is left.
        Some(_) if table.is_none() && reset == AutoOffsetReset::Earliest => Ok(Begin::At(known.first)),
        Some(next) => Err(gone(at, known, next, known_gap)),
        None => anew(at, known, reset),
    }
}

fn anew(at: &StreamPartition, known: &Known, reset: AutoOffsetReset) -> Result<Begin> {
    let had_rows = known.committed.is_some();
    match reset {
        AutoOffsetReset::Earliest if had_rows => Ok(Begin::Anew(known.first)),
        AutoOffsetReset::Earliest => Ok(Begin::At(known.first)),
        AutoOffsetReset::Latest if !had_rows => Ok(Begin::End),
        AutoOffsetReset::Latest => Err(Error::config(format!(
            "{at}: the table has no offset, but rows of the partition up to offset {} were committed before, and \
             auto_offset_reset: latest would leave out what came since. Set auto_offset_reset: earliest to begin anew, or say where to go on \
             with the sink's action `offsets`",
            known.committed.as_ref().and_then(|(_, mark)| mark.table).unwrap_or(-1)
        ))),
        AutoOffsetReset::None => Err(Error::config(format!(
            "{at}: the table knows nothing of this partition, and auto_offset_reset is none; allowed are earliest, latest, or an offset \
             that the sink's action `offsets` sets. The partition has messages from offset {} to {}",
            known.first,
            known.end - 1
        ))),
    }
}

fn same_topic(at: &StreamPartition, known: &Known, table: &TableOffset) -> Result<()> {
    let print = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
    if table.lineage.cluster != known.lineage.cluster {
        return Err(Error::config(format!(
            "{at}: the table's offset is of cluster {}, and these brokers are cluster {}; {}",
            table.lineage.cluster,
            known.lineage.cluster,
            way_out(at, known)
        )));
    }
    if table.lineage.topic_id != known.lineage.topic_id {
        return Err(Error::config(format!(
            "{at}: the table's offset is of a topic with the id {}, and the topic of this name now has the id {}: it was made anew. {}",
            print(&table.lineage.topic_id),
            print(&known.lineage.topic_id),
            way_out(at, known)
        )));
    }
    Ok(())
}

fn beyond(at: &StreamPartition, known: &Known, next: i64) -> Error {
    Error::config(format!(
        "{at}: the table goes on at offset {next}, and the partition ends at {}: it has lost messages, or is another one. {}",
        known.end,
        way_out(at, known)
    ))
}

fn gone(at: &StreamPartition, known: &Known, next: i64, known_gap: bool) -> Error {
    let what = if known_gap { "messages" } else { "messages, which may hold rows," };
    Error::config(format!(
        "{at}: the table goes on at offset {next}, and the partition begins at {} and ends at {}: {} {what} are gone by retention. {}",
        known.first,
        known.end,
        known.first - next,
        way_out(at, known)
    ))
}

/// What the operator can do: go on behind the first message that is left, or at the end, or let the configuration decide.
fn way_out(at: &StreamPartition, known: &Known) -> String {
    let (stream, partition) = (&at.stream, &at.partition);
    let behind = |next: i64| {
        let offset = TableOffset { lineage: known.lineage.clone(), offset: next - 1 };
        offset.write().ok().filter(|_| next > 0).map(|offset| {
            format!(" `offsets stream={stream} partition={partition} offset='{}'` goes on at {next};", offset.as_str())
        })
    };
    let first = behind(known.first).unwrap_or_default();
    let end = behind(known.end).filter(|_| known.end != known.first).unwrap_or_default();
    format!(
        "Nothing was read. To accept it, use the sink's action:{first}{end} `offsets stream={stream} partition={partition} reset=true` lets \
         auto_offset_reset decide"
    )
}

#[cfg(test)]
mod tests {
    use philotes_sdk::StreamName;

    use super::*;

    fn lineage(topic_id: &str) -> Lineage {
        Lineage { cluster: "c".into(), topic_id: Some(topic_id.into()) }
    }

    fn known(first: i64, end: i64, committed: Option<(i64, Option<i64>)>) -> Known {
        let lineage = lineage("t");
        let committed = committed.map(|(at, table)| (at, GroupMark::new(&lineage, table)));
        Known { lineage, first, end, committed }
    }

    fn begins(known: &Known, table: Option<i64>, reset: AutoOffsetReset) -> Result<Begin, String> {
        let at = StreamPartition { stream: StreamName::new(["orders"]).unwrap(), partition: "3".into() };
        let table = table.map(|offset| TableOffset { lineage: lineage("t"), offset });
        begin(&at, known, table.as_ref(), reset).map_err(|error| {
            assert_eq!(error.kind(), philotes_sdk::ErrorKind::Config);
            error.to_string()
        })
    }

    #[test]
    fn the_table_says_where_to_go_on() {
        use AutoOffsetReset::{Earliest, Latest, None as Never};
        for reset in [Earliest, Latest, Never] {
            assert_eq!(begins(&known(0, 10, None), Some(4), reset), Ok(Begin::At(5)));
            assert_eq!(begins(&known(5, 10, None), Some(4), reset), Ok(Begin::At(5)));
            assert_eq!(begins(&known(0, 5, None), Some(4), reset), Ok(Begin::At(5)));
            // Whatever the group says, unless it speaks of just this offset.
            assert_eq!(begins(&known(0, 10, Some((9, Some(7)))), Some(4), reset), Ok(Begin::At(5)));
            assert_eq!(begins(&known(0, 10, Some((9, None))), Some(4), reset), Ok(Begin::At(5)));
            assert_eq!(begins(&known(0, 10, Some((2, Some(4)))), Some(4), reset), Ok(Begin::At(5)));
            assert_eq!(begins(&known(0, 10, Some((9, Some(4)))), Some(4), reset), Ok(Begin::At(9)));
        }
    }

    #[test]
    fn what_retention_has_taken_is_told_with_its_numbers() {
        let error = begins(&known(8, 10, None), Some(4), AutoOffsetReset::Earliest).unwrap_err();
        let way_out = r#"offset='{"cluster":"c","topic_id":"t","offset":7}'` goes on at 8"#;
        for part in ["orders/3", "at offset 5", "begins at 8", "ends at 10", "3 messages", way_out] {
            assert!(error.contains(part), "{error}");
        }
        // Messages that are no rows may go: those up to offset 7, and so may all, if there were no others.
        assert_eq!(begins(&known(8, 10, Some((8, Some(4)))), Some(4), AutoOffsetReset::None), Ok(Begin::At(8)));
        assert!(begins(&known(8, 10, Some((7, Some(4)))), Some(4), AutoOffsetReset::Earliest).is_err());
        assert!(begins(&known(0, 5, None), Some(5), AutoOffsetReset::Earliest).unwrap_err().contains("ends at 5"));
    }

    #[test]
    fn a_topic_that_was_made_anew_is_refused() {
        let at = StreamPartition::only(StreamName::new(["orders"]).unwrap());
        let other = TableOffset { lineage: lineage("u"), offset: 1 };
        let error = begin(&at, &known(0, 10, None), Some(&other), AutoOffsetReset::Earliest).unwrap_err().to_string();
        assert!(error.contains("id u") && error.contains("id t"), "{error}");
        let mut other = TableOffset { lineage: lineage("t"), offset: 1 };
        other.lineage.cluster = "d".into();
        let error = begin(&at, &known(0, 10, None), Some(&other), AutoOffsetReset::Earliest).unwrap_err().to_string();
        assert!(error.contains("cluster d") && error.contains("cluster c"), "{error}");
    }

    #[test]
    fn where_the_table_knows_nothing_the_configuration_decides() {
        use AutoOffsetReset::{Earliest, Latest, None as Never};
        assert_eq!(begins(&known(3, 10, None), None, Earliest), Ok(Begin::At(3)));
        assert_eq!(begins(&known(3, 10, None), None, Latest), Ok(Begin::End));
        assert!(begins(&known(3, 10, None), None, Never).unwrap_err().contains("from offset 3 to 9"));
        // A start that was written down, before any row was in the table.
        for reset in [Earliest, Latest, Never] {
            assert_eq!(begins(&known(3, 10, Some((6, None))), None, reset), Ok(Begin::At(6)));
        }
        assert_eq!(begins(&known(8, 10, Some((6, None))), None, Earliest), Ok(Begin::At(8)));
        assert!(begins(&known(8, 10, Some((6, None))), None, Latest).unwrap_err().contains("2 messages"));
        // Rows were in a table that is gone.
        assert_eq!(begins(&known(3, 10, Some((7, Some(6)))), None, Earliest), Ok(Begin::Anew(3)));
        assert!(begins(&known(3, 10, Some((7, Some(6)))), None, Latest).unwrap_err().contains("offset 6"));
        assert!(begins(&known(3, 10, Some((7, Some(6)))), None, Never).is_err());
    }
}
