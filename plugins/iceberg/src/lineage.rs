//! Does a token still speak of the data that the table holds?
//!
//! A token lives in the table's properties, which a rollback or a CREATE OR REPLACE leaves as they are while the rows
//! it covers are gone. Going on after it would lose them for good. So the snapshot that the token names must belong to
//! the history of the current one.

use std::collections::HashSet;

use iceberg::spec::{MAIN_BRANCH, SnapshotRef, TableMetadata};

use crate::token::Token;

/// The current snapshot of the main branch.
pub(crate) fn head(metadata: &TableMetadata) -> Option<&SnapshotRef> {
    metadata.snapshot_for_ref(MAIN_BRANCH)
}

/// The snapshots of the main branch from the newest back, as far as they have not expired.
pub(crate) fn history(metadata: &TableMetadata) -> impl Iterator<Item = &SnapshotRef> {
    // A chain that comes back to itself would be a broken table; each snapshot is passed once.
    let mut passed = HashSet::new();
    std::iter::successors(head(metadata), |snapshot| metadata.snapshot_by_id(snapshot.parent_snapshot_id()?))
        .take_while(move |snapshot| passed.insert(snapshot.snapshot_id()))
}

/// Checks that a token's snapshot belongs to the history of the current snapshot, and says why where it does not.
///
/// A token whose snapshot has expired is accepted as long as the history that is left may lead back to it: the chain
/// of parents then ends, at a snapshot that has expired as well, above the token's sequence number. A token whose
/// snapshot still exists must be reached; where the snapshots in between have expired around a tag, that cannot be seen
/// and is refused too.
pub(crate) fn check(metadata: &TableMetadata, token: &Token) -> Result<(), String> {
    let named = token.snapshot_id;
    let Some(head) = head(metadata) else {
        return Err(format!("it has no current snapshot although rows were committed up to snapshot {named}"));
    };
    let gone = |how: &str| {
        Err(format!(
            "the history of its current snapshot {} {how} snapshot {named} that holds the last committed rows: it was \
             rolled back or replaced",
            head.snapshot_id()
        ))
    };
    let mut oldest = head;
    for snapshot in history(metadata) {
        if snapshot.snapshot_id() == named {
            return Ok(());
        }
        if snapshot.sequence_number() <= token.sequence_number {
            return gone("goes past");
        }
        oldest = snapshot;
    }
    if metadata.snapshot_by_id(named).is_some() {
        return gone("does not lead to");
    }
    match oldest.parent_snapshot_id() {
        None => gone("begins after"),
        // Sequence numbers rise along the history, so that between two that follow each other no snapshot has its place.
        Some(parent) if parent != named && oldest.sequence_number() == token.sequence_number + 1 => gone("goes past"),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::spec::{
        FormatVersion, NestedField, Operation, PrimitiveType, Schema, Snapshot, SortOrder, Summary,
        TableMetadataBuilder, Type, UnboundPartitionSpec,
    };
    use philotes_sdk::Offset;
    use uuid::Uuid;

    use super::*;

    /// A table with snapshots (id, parent, sequence number), the last of them current.
    fn table(snapshots: &[(i64, Option<i64>, i64)]) -> TableMetadataBuilder {
        let field = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
        let mut builder = TableMetadataBuilder::new(
            schema,
            UnboundPartitionSpec::builder().build(),
            SortOrder::unsorted_order(),
            "file:///t".into(),
            FormatVersion::V2,
            HashMap::new(),
        )
        .unwrap();
        for (id, parent, sequence) in snapshots {
            let snapshot = Snapshot::builder()
                .with_snapshot_id(*id)
                .with_parent_snapshot_id(*parent)
                .with_sequence_number(*sequence)
                .with_timestamp_ms(1_700_000_000_000 + sequence)
                .with_manifest_list(format!("file:///t/{id}.avro"))
                .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
                .build();
            builder = builder.set_branch_snapshot(snapshot, MAIN_BRANCH).unwrap();
            // Each its own commit, so that the builder does not take the earlier ones for intermediate states.
            builder = builder.build().unwrap().metadata.into_builder(None);
        }
        builder
    }

    fn token(snapshot_id: i64, sequence_number: i64) -> Token {
        Token { offset: Offset::new("1").unwrap(), commit_id: Uuid::nil(), snapshot_id, sequence_number }
    }

    fn ok(builder: TableMetadataBuilder, token: &Token) -> bool {
        check(&builder.build().unwrap().metadata, token).is_ok()
    }

    const LINE: &[(i64, Option<i64>, i64)] = &[(10, None, 1), (20, Some(10), 2), (30, Some(20), 3), (40, Some(30), 4)];

    #[test]
    fn ancestors_and_the_head_itself_are_accepted() {
        for (id, _, sequence) in LINE {
            assert!(ok(table(LINE), &token(*id, *sequence)));
        }
    }

    #[test]
    fn a_token_without_a_head_is_refused() {
        assert!(!ok(table(&[]), &token(10, 1)));
    }

    #[test]
    fn a_rollback_is_refused_while_the_snapshot_exists_and_after() {
        let rolled_back = || {
            let reference = iceberg::spec::SnapshotReference {
                snapshot_id: 20,
                retention: iceberg::spec::SnapshotRetention::Branch {
                    min_snapshots_to_keep: None,
                    max_snapshot_age_ms: None,
                    max_ref_age_ms: None,
                },
            };
            table(LINE).set_ref(MAIN_BRANCH, reference).unwrap()
        };
        assert!(!ok(rolled_back(), &token(30, 3)));
        assert!(!ok(rolled_back().remove_snapshots(&[30, 40]), &token(30, 3)));
        assert!(ok(rolled_back(), &token(20, 2)));
        // Committed to again after the rollback: 50 goes on from 20.
        let again = [LINE, &[(50, Some(20), 5)]].concat();
        assert!(!ok(table(&again), &token(30, 3)));
        assert!(!ok(table(&again).remove_snapshots(&[30, 40]), &token(30, 3)));
    }

    #[test]
    fn an_expired_snapshot_is_accepted_while_the_chain_may_lead_to_it() {
        let expired = || table(LINE).remove_snapshots(&[10, 20]);
        assert!(ok(expired(), &token(20, 2)));
        assert!(!ok(expired(), &token(25, 2)));
        assert!(ok(expired(), &token(10, 1)));
        // What would be between 30 and 40 never was.
        assert!(!ok(expired(), &token(35, 3)));
    }

    #[test]
    fn a_replaced_table_is_refused() {
        let replaced = [LINE, &[(50, None, 5)]].concat();
        assert!(!ok(table(&replaced), &token(40, 4)));
        assert!(!ok(table(&replaced).remove_snapshots(&[10, 20, 30, 40]), &token(40, 4)));
    }
}
