//! Strangers' bytes against every parser that reads some: what a parser is given must end in a value or an error, soon, in little
//! memory, and by no panic.
//!
//! `make fuzz` builds [`TARGETS`] with libFuzzer, which keeps what reaches something new; `make test` tries the seeds and changes of
//! them at random for a second each. What was found once stays in `corpus/`.

mod json;

/// The parsers that are tried together: a name, and what tries them.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Where there are several parsers, the first byte says which one.
pub const TARGETS: [Target; 8] = [
    ("config", |input| {
        choose(input, &[&text(philotes_host::fuzz::connector_file), &text(philotes_host::fuzz::spec), &texts]);
    }),
    ("json", |input| choose(input, &[&text(json::scanner), &text(json::values)])),
    ("buffer", |input| {
        use philotes_postgres_buffer::fuzz;
        choose(input, &[&fuzz::rows, &fuzz::copy, &text(fuzz::texts)]);
    }),
    ("kafka", philotes_kafka::fuzz::messages),
    ("registry", philotes_kafka::fuzz::registered),
    ("avro", |input| choose(input, &[&philotes_iceberg::fuzz::avro, &philotes_iceberg::fuzz::avro_parts])),
    ("metadata", |input| choose(input, &[&philotes_iceberg::fuzz::metadata, &philotes_iceberg::fuzz::answers])),
    ("files", philotes_iceberg::fuzz::files),
];

type Parser<'a> = &'a dyn Fn(&[u8]);

fn choose(input: &[u8], parsers: &[Parser<'_>]) {
    if let Some((first, rest)) = input.split_first() {
        parsers[usize::from(*first) % parsers.len()](rest);
    }
}

/// A parser of texts, which are UTF-8 where they come from.
fn text(parser: fn(&str)) -> impl Fn(&[u8]) {
    move |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            parser(text);
        }
    }
}

/// Whatever stands in a key of the configuration.
fn texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    philotes_kafka::fuzz::texts(text);
    philotes_iceberg::fuzz::texts(text);
    json::names(text);
}
