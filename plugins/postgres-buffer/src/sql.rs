//! The statements that depend on what was seen and what is wanted; fixed ones stand where they are run.

use crate::seen::Probe;

/// The channel on which writers may say that rows have come; the payload is the source_id.
pub(crate) const CHANNEL: &str = "philotes_cdc_events";

/// What a session begins with: nothing that a user of the database made is found in place of what
/// is meant.
pub(crate) const SEARCH_PATH: &str = "SET search_path = pg_catalog, pg_temp";

/// What `init` runs.
pub(crate) const INIT: &str = include_str!("../sql/init.sql");
/// What `capture` runs.
pub(crate) const CAPTURE: &str = include_str!("../sql/capture.sql");

/// A literal; the server's strings take backslashes as they are (`standard_conforming_strings` is set per session).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn array<'a>(items: impl Iterator<Item = &'a str>, of: &str) -> String {
    let items: Vec<String> = items.map(literal).collect();
    format!("ARRAY[{}]::{of}[]", items.join(","))
}

/// A stream whose rows are sent whole.
pub(crate) struct Wanted<'a> {
    pub(crate) schema: &'a str,
    pub(crate) table: &'a str,
    /// Metadata and key columns that are known already, as JSON. A row that has the same does not send them, which saves
    /// most of its bytes where the metadata names the columns.
    pub(crate) known: Option<(Option<&'a str>, Option<&'a str>)>,
    /// Its key is known whatever its rows say.
    pub(crate) keyed: bool,
}

/// How many streams' rows carry a mark in place of their names; each costs every row of the others a comparison.
pub(crate) const MARKED: usize = 8;

/// One snapshot of the buffer: rows of the wanted streams whole, of the others only whose they are, by ascending id.
pub(crate) struct Snapshot<'a> {
    pub(crate) source_id: &'a str,
    pub(crate) probes: &'a [Probe],
    /// The first [`MARKED`] of them are marked, so that the busiest should come first.
    pub(crate) wanted: &'a [Wanted<'a>],
    /// Streams of which not even the ids are sent.
    pub(crate) left_out: &'a [Wanted<'a>],
    pub(crate) limit: u64,
    /// The index on (source_id, id) of unprocessed rows is there.
    pub(crate) indexed: bool,
}

impl Snapshot<'_> {
    /// The COPY statement.
    pub(crate) fn statement(&self) -> String {
        let Self { source_id, probes, limit, .. } = self;
        let source_id = literal(source_id);
        let (first, last): (Vec<String>, Vec<String>) =
            probes.iter().map(|probe| (probe.span.0.to_string(), probe.span.1.to_string())).unzip();
        let bitmaps: Vec<String> = probes
            .iter()
            .map(|probe| if probe.seen.is_empty() { "NULL".to_owned() } else { literal(&probe.bitmap()) })
            .collect();
        let unseen = if probes.iter().all(|probe| probe.seen.is_empty()) {
            ""
        } else {
            "AND (probe.seen IS NULL OR get_bit(probe.seen, id - probe.first) = 0)"
        };
        // Written as ANY, the source_id is no constant to the planner, so that only an index that begins with it yields the
        // order, and never the primary key, which would wade through every processed row. (A comparison of whole rows
        // would do that as well, but an index scan does not end at one.)
        let (source, order) = if self.indexed {
            (format!("source_id = ANY (ARRAY[{source_id}])"), "source_id, id")
        } else {
            (format!("source_id = {source_id}"), "id")
        };
        let left_out: String = self
            .left_out
            .iter()
            .map(|s| format!(" AND NOT (table_name = {} AND schema_name = {})", literal(s.table), literal(s.schema)))
            .collect();
        // The LIMIT within keeps the planner from merging the queries: mark and whole are computed once, and the spans are
        // read one after the other, which is what orders the rows. The reader checks the order.
        let (mark, whole, keyed) = (self.mark(), self.whole(), self.keyed());
        format!(
            "COPY (SELECT e.id, e.mark, CASE WHEN e.mark IS NULL THEN e.schema_name END, \
             CASE WHEN e.mark IS NULL THEN e.table_name END, CASE WHEN e.whole THEN e.operation END, \
             CASE WHEN e.whole THEN e.lsn END, e.event_time, e.created_at, \
             CASE WHEN e.mark % 2 = 0 THEN NULL WHEN e.whole THEN e.key_columns END, \
             CASE WHEN e.whole AND (e.operation = 'DELETE' OR (e.operation = 'UPDATE' AND (e.key_columns IS NOT NULL{keyed}))) \
             THEN e.before_data END, CASE WHEN e.whole AND e.operation <> 'DELETE' THEN e.after_data END, \
             CASE WHEN e.mark % 2 = 0 THEN NULL WHEN e.whole THEN e.metadata END \
             FROM unnest(ARRAY[{}]::int8[], ARRAY[{}]::int8[], ARRAY[{}]::bytea[]) AS probe (first, last, seen) \
             CROSS JOIN LATERAL (SELECT *, {mark} AS mark, {whole} AS whole \
             FROM philotes.cdc_events WHERE {source} AND id >= probe.first AND id <= probe.last \
             AND processed_at IS NULL {unseen}{left_out} ORDER BY {order} LIMIT {limit}) AS e \
             LIMIT {limit}) TO STDOUT (FORMAT binary)",
            first.join(","),
            last.join(","),
            bitmaps.join(","),
        )
    }

    /// Twice the place of a marked stream in `wanted`, plus one where metadata or key columns are not those known.
    fn mark(&self) -> String {
        let mut cases = String::new();
        for (place, stream) in self.wanted.iter().take(MARKED).enumerate() {
            let json = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), literal);
            let other = 2 * place + 1;
            // The operator compares bytes, which costs a tenth of comparing JSON.
            let mark = match stream.known {
                Some((metadata, key)) => format!(
                    "CASE WHEN ROW(metadata, key_columns)::record *= (SELECT ROW({}::jsonb, {}::jsonb)::record) \
                     THEN {}::int2 ELSE {other}::int2 END",
                    json(metadata),
                    json(key),
                    2 * place
                ),
                None => format!("{other}::int2"),
            };
            let names = format!("table_name = {} AND schema_name = {}", literal(stream.table), literal(stream.schema));
            cases.push_str(&format!(" WHEN {names} THEN {mark}"));
        }
        if cases.is_empty() { "NULL::int2".to_owned() } else { format!("CASE{cases} END") }
    }

    /// Whether a row has a key although it does not say so.
    fn keyed(&self) -> String {
        let keyed = self.wanted.iter().filter(|stream| stream.keyed);
        keyed
            .map(|s| format!(" OR (e.table_name = {} AND e.schema_name = {})", literal(s.table), literal(s.schema)))
            .collect()
    }

    /// Whether a row is sent whole. With very many streams it may be sent although nobody asked, and is then left alone.
    fn whole(&self) -> String {
        let schemas = array(self.wanted.iter().map(|stream| stream.schema), "text");
        let tables = array(self.wanted.iter().map(|stream| stream.table), "text");
        format!("schema_name = ANY ({schemas}) AND table_name = ANY ({tables})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Either file is run alone, too, and looks at the schema before it touches it.
    #[test]
    fn both_files_look_at_whose_the_schema_is() {
        let look = |file: &str| {
            let from = file.find("-- What is executed here").unwrap();
            file[from..from + file[from..].find("END $$;").unwrap()].to_owned()
        };
        assert_eq!(look(INIT), look(CAPTURE));
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(literal("it's"), "'it''s'");
        let probes = [Probe { span: (1, 2), seen: vec![1] }];
        let wanted =
            [Wanted { schema: "o'x", table: "t", known: Some((Some("{\"a\": \"it's\"}"), None)), keyed: true }];
        let statement =
            Snapshot { source_id: "s'", probes: &probes, wanted: &wanted, left_out: &wanted, limit: 5, indexed: true }
                .statement();
        assert!(statement.contains("ARRAY['o''x']::text[]"));
        assert!(statement.contains("source_id = ANY (ARRAY['s'''])"));
        assert!(statement.contains("'\\x01'"));
        assert!(statement.contains(r#"ROW('{"a": "it''s"}'::jsonb, NULL::jsonb)"#));
        assert!(statement.contains("AND NOT (table_name = 't' AND schema_name = 'o''x')"));
        assert!(statement.contains("key_columns IS NOT NULL OR (e.table_name = 't' AND e.schema_name = 'o''x')"));
    }
}
