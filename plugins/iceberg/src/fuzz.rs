//! The parsers of what others write into tables and what catalogs answer, for tests/fuzz.

use iceberg::spec::{FormatVersion, Manifest, ManifestList, PartitionSpec, TableMetadata};
use philotes_sdk::StreamName;

use crate::catalog::fuzz as catalog;
use crate::dead_letters::fuzz as dead_letters;
use crate::lookup::fuzz as lookup;
use crate::manifests::{self, Content};
use crate::overrides::{Given, Overrides};
use crate::partition::{self, Partitioner};
use crate::template::Template;
use crate::{sort, token};

/// A manifest, and a list of them in each version of the format.
pub fn avro(input: &[u8]) {
    if let Ok(sound) = manifests::bounded(input, Content::Manifest) {
        let again = manifests::bounded(&sound, Content::Manifest).expect("what was written anew is sound");
        assert_eq!(again, sound);
        if let Ok(readable) = manifests::readable(&sound) {
            let _ = Manifest::parse_avro(&readable);
        }
    }
    if let Ok(sound) = manifests::bounded(input, Content::List) {
        for version in [FormatVersion::V1, FormatVersion::V2, FormatVersion::V3] {
            let _ = ManifestList::parse_with_version(&sound, version);
        }
    }
}

/// The same of a schema, up to a NUL, and one block: four bytes of how many objects there are, and theirs.
pub fn avro_parts(input: &[u8]) {
    let Some(at) = input.iter().position(|byte| *byte == 0) else { return };
    let (schema, rest) = (&input[..at], &input[at + 1..]);
    let Some((count, block)) = rest.split_first_chunk::<4>() else { return };
    let columns = br#"{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"a","required":false,"type":"long"}]}"#;
    let entries: [(&str, &[u8]); 4] = [
        ("avro.schema", schema),
        ("schema", columns),
        ("partition-spec", br#"[{"name":"a b","field-id":1000,"source-id":1,"transform":"identity"}]"#),
        ("format-version", b"2"),
    ];
    avro(&manifests::file_of(&entries, usize::try_from(u32::from_be_bytes(*count)).unwrap_or_default(), block));
}

/// A metadata file, perhaps compressed, and everything that reads something in it.
pub fn metadata(input: &[u8]) {
    if let Some(metadata) = catalog::file(input) {
        of_table(&metadata);
    }
}

/// What a catalog answers.
pub fn answers(input: &[u8]) {
    if let Some(metadata) = catalog::answers(input) {
        of_table(&metadata);
    }
}

fn of_table(metadata: &TableMetadata) {
    let _ = token::read_everyones(metadata);
    let _ = token::read_all(metadata, "c");
    dead_letters::properties(metadata);
    let schema = metadata.current_schema();
    for spec in metadata.partition_specs_iter() {
        let _ = Partitioner::new(spec, schema);
    }
    let _ = sort::printed(metadata.default_sort_order(), schema);
}

/// The configuration's texts: `partition_by`, `sort_by`, `table`, `columns`, locations.
pub fn texts(input: &str) {
    let entries: Vec<String> = input.split('\n').map(str::to_owned).collect();
    if let Ok(fields) = partition::parse(&entries) {
        let printed: Vec<String> = fields.iter().map(ToString::to_string).collect();
        assert_eq!(partition::parse(&printed).expect("what is printed is read"), fields);
    }
    if let Ok(fields) = sort::parse(&entries) {
        let printed: Vec<String> = fields.iter().map(ToString::to_string).collect();
        assert_eq!(sort::parse(&printed).expect("what is printed is read"), fields);
    }
    if let Ok(template) = Template::parse(input) {
        let stream = StreamName::new(["public", input]).expect("it has two parts");
        let _ = template.table(&stream);
        template.namespace();
    }
    if let Ok(given) = serde_json::from_str::<Given>(input) {
        let _ = Overrides::parse(&given);
    }
    if let Ok(spec) = serde_json::from_str::<PartitionSpec>(input) {
        let _ = spec.fields().len();
    }
    catalog::locations(input);
}

/// Deletion vectors and rows of dead letters, and the footers of data files.
pub fn files(input: &[u8]) {
    lookup::vector(input);
    lookup::footer(input);
    dead_letters::row(input);
}
