use std::fs;
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory;
use philotes_sdk::ErrorKind;

use super::*;
use crate::testing::{Fault, World};

const GOOD: &str = "name: shop\nsource: {plugin: memory-source, dsn: hunter2}\nsink: {plugin: memory-sink}\n";

struct Fixture {
    world: Arc<World>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f.yaml"), GOOD).unwrap();
        Self { world: World::with_streams(&[("a", 1), ("b", 1)]), dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("f.yaml")
    }

    fn printed(&self, command: impl FnOnce(&dyn Plugins, &mut dyn Write) -> anyhow::Result<Exit>) -> (Exit, String) {
        let mut out = Vec::new();
        let exit = command(&self.world, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", self.dir.path().display()), "");
        assert!(!text.contains("hunter2"), "{text}");
        (exit, text)
    }

    fn action(&self, end: Option<Kind>, name: Option<&str>, arguments: &[&str]) -> (Exit, String) {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        self.printed(|plugins, out| action::action(&self.file(), end, name, &arguments, plugins, out))
    }
}

fn validated(fixture: &Fixture, connect: bool) -> (Exit, String) {
    fixture.printed(|plugins, out| validate::validate(&[fixture.dir.path().to_owned()], connect, plugins, out))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    assert!(Cli::try_parse_from(["philotes", "run", "--grace", "5", "f"]).is_err());
    assert!(Cli::try_parse_from(["philotes", "run"]).is_err());
}

#[test]
fn validate_says_ok_or_one_line_per_fault() {
    let fixture = Fixture::new();
    assert_eq!(validated(&fixture, false), (Exit::Done, "f.yaml: OK\n".to_owned()));
    fs::write(fixture.dir.path().join("g.yaml"), GOOD.replace("plugin: memory-sink", "plugin: memory-sink, x: 1"))
        .unwrap();
    let (exit, text) = validated(&fixture, false);
    assert_eq!(exit, Exit::Config);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("g.yaml: sink.x: unknown key"));
    assert_eq!(lines[1], "f.yaml: OK");
}

#[test]
fn validate_connect_reaches_both_ends() {
    let fixture = Fixture::new();
    assert_eq!(validated(&fixture, true), (Exit::Done, "f.yaml: OK\n".to_owned()));
    fixture.world.fault("source.check", 1, 9, Fault::Fail(ErrorKind::Unavailable));
    fixture.world.fault("sink.check", 1, 9, Fault::Fail(ErrorKind::Unavailable));
    fixture.world.lock().counts.clear();
    let (exit, text) = validated(&fixture, true);
    assert_eq!(exit, Exit::Config);
    let expected = "f.yaml: source.dsn: scripted failure of source.check 1\n\
                    f.yaml: sink.dsn: scripted failure of sink.check 1\n";
    assert_eq!(text, expected);
}

fn rename_into(table: &str) -> String {
    format!("{GOOD}route: {{rename: {{public.b: other.{table}}}}}\n")
}

#[test]
fn streams_that_meet_in_one_table_are_a_fault() {
    let fixture = Fixture::new();
    fs::write(fixture.file(), rename_into("A")).unwrap();
    let (exit, text) = validated(&fixture, true);
    assert_eq!(exit, Exit::Config);
    assert!(
        text.starts_with("f.yaml: sink.table: the streams public.a and public.b all go to the table cdc."),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    let (exit, text) = fixture.printed(|plugins, out| plan::plan(&[fixture.file()], plugins, out));
    assert_eq!(exit, Exit::Config);
    assert!(text.lines().last().unwrap().starts_with("f.yaml: sink.table: the streams"), "{text}");
    fs::write(fixture.file(), rename_into("c")).unwrap();
    assert_eq!(validated(&fixture, true).0, Exit::Done);
}

#[test]
fn plan_prints_tables_columns_and_partitions() {
    let fixture = Fixture::new();
    fs::write(fixture.file(), format!("{GOOD}route: {{exclude: [public.b]}}\n")).unwrap();
    let (exit, text) = fixture.printed(|plugins, out| plan::plan(&[fixture.file()], plugins, out));
    assert_eq!(exit, Exit::Done);
    let expected = "shop: memory-source to memory-sink, 1 streams\n\
                    \n\
                    public.a -> cdc.a (create, sampled from 3 rows)\n\
                    \x20 column  source type        target type            change\n\
                    \x20 id      bigint (inferred)  long         required\n\
                    \x20 partitioned by day(_cdc_timestamp) as date\n\
                    \x20 note: a note\n";
    assert_eq!(text, expected);
    // Nothing was opened, claimed or written.
    assert_eq!(fixture.world.count("source.open") + fixture.world.count("sink.open"), 0);

    fixture.world.fault("source.streams", 1, 9, Fault::Fail(ErrorKind::Unavailable));
    fixture.world.lock().counts.clear();
    let (exit, text) = fixture.printed(|plugins, out| plan::plan(&[fixture.file()], plugins, out));
    assert_eq!((exit, text.as_str()), (Exit::Failed, "f.yaml: source: scripted failure of source.streams 1\n"));
}

#[test]
fn actions_are_listed_checked_and_done() {
    let fixture = Fixture::new();
    let (exit, text) = fixture.action(None, None, &[]);
    assert_eq!(exit, Exit::Done);
    assert!(
        text.starts_with("source capture table=… [schema=…]\n    Captures a table.\n    table: the table\n"),
        "{text}"
    );
    assert!(text.contains("\nsink capture"), "{text}");
    assert!(!fixture.action(Some(Kind::Source), None, &[]).1.contains("sink"));

    let source = Some(Kind::Source);
    assert_eq!(
        fixture.action(source, Some("capture"), &["table=public.a"]),
        (Exit::Done, "table     state\npublic.a  captured\n".to_owned())
    );
    assert_eq!(
        fixture.action(source, Some("captur"), &[]),
        (
            Exit::Config,
            "f.yaml: source captur: no such action of memory-source, did you mean capture?; allowed: capture, fail\n"
                .to_owned()
        )
    );
    let (exit, text) = fixture.action(source, Some("capture"), &["tabel=x", "schema=a", "schema=b", "junk"]);
    assert_eq!(exit, Exit::Config);
    let expected = "f.yaml: source capture: tabel: unknown argument, did you mean table?; allowed: table, schema\n\
                    f.yaml: source capture: schema: given twice; allowed: once\n\
                    f.yaml: source capture: found \"junk\"; allowed: key=value with table, schema\n\
                    f.yaml: source capture: table: missing; allowed: the table\n";
    assert_eq!(text, expected);
    assert_eq!(
        fixture.action(source, Some("fail"), &[]),
        (Exit::Failed, "f.yaml: source fail: nobody is there\n".to_owned())
    );
}

#[test]
fn an_exclusive_argument_holds_the_source_meanwhile() {
    let fixture = Fixture::new();
    let sink = Some(Kind::Sink);
    fixture.action(sink, Some("fail"), &[]);
    assert_eq!(fixture.world.count("source.open"), 0);
    let (exit, text) = fixture.action(sink, Some("fail"), &["alone=1"]);
    assert_eq!((exit, text.as_str()), (Exit::Failed, "f.yaml: sink fail: nobody is there\n"));
    assert_eq!((fixture.world.count("source.open"), fixture.world.count("source.close")), (1, 1));

    fixture.world.fault("source.open", 2, 1, Fault::Fail(ErrorKind::Unavailable));
    fixture.world.fault("source.open", 3, 1, Fault::Fail(ErrorKind::Config));
    let refused = |exit: Exit, open: u8| {
        let text = format!(
            "f.yaml: sink fail: alone= wants the connector to be stopped, and its source cannot be held meanwhile; nothing was \
             changed. If the connector runs, stop it first: scripted failure of source.open {open}\n"
        );
        assert_eq!(fixture.action(sink, Some("fail"), &["alone=1"]), (exit, text));
    };
    refused(Exit::Failed, 2);
    refused(Exit::Config, 3);
    assert_eq!(fixture.world.count("source.close"), 1);
    // It has let go in any case, and the action is done.
    fixture.world.fault("source.close", 2, 1, Fault::Fail(ErrorKind::Unavailable));
    assert!(fixture.action(sink, Some("fail"), &["alone=1"]).1.ends_with("nobody is there\n"));
    assert_eq!(fixture.world.count("source.close"), 2);
}

#[test]
fn plugins_are_listed_and_described() {
    let fixture = Fixture::new();
    let (_, text) = fixture.printed(|plugins, out| plugins::list(plugins, out));
    assert!(
        text.lines().nth(1).unwrap().starts_with("memory-source  source  1.2.3    memory.so  Holds rows"),
        "{text}"
    );
    let (exit, text) = fixture.printed(|plugins, out| plugins::describe("memory-sink", plugins, out));
    assert_eq!(exit, Exit::Done);
    for line in [
        "memory-sink (sink, 1.2.3)",
        "  dsn          string           secret     Where.",
        "  rows         integer          default 3",
        "  mode         append | upsert",
        "  catalog.uri  string           required",
        "  capture table=… [schema=…]: Captures a table.",
    ] {
        assert!(text.lines().any(|each| each == line), "no {line:?} in:\n{text}");
    }
    let (exit, text) = fixture.printed(|plugins, out| plugins::describe("memory-snk", plugins, out));
    let expected = "memory-snk: no such plugin, did you mean memory-sink?; allowed: memory-sink, memory-source\n";
    assert_eq!((exit, text.as_str()), (Exit::Config, expected));
}

#[test]
fn a_directory_is_no_file_of_one_connector() {
    let fixture = Fixture::new();
    fs::write(fixture.dir.path().join("g.yaml"), GOOD.replace("shop", "other")).unwrap();
    let (exit, text) =
        fixture.printed(|plugins, out| action::action(Path::new(fixture.dir.path()), None, None, &[], plugins, out));
    assert_eq!(exit, Exit::Config);
    assert!(text.ends_with("found 2 connectors; allowed: the file of one\n"), "{text}");
}

#[test]
fn plan_says_why_there_are_no_streams() {
    let plan = |fixture: &Fixture| fixture.printed(|plugins, out| plan::plan(&[fixture.file()], plugins, out));
    let fixture = Fixture { world: World::with_streams(&[]), ..Fixture::new() };
    let (exit, text) = plan(&fixture);
    assert_eq!(exit, Exit::Done);
    let (head, why) = text.split_once('\n').unwrap();
    assert_eq!(head, "shop: memory-source to memory-sink, 0 streams");
    assert!(why.starts_with("  no streams: memory-source finds none now"), "{why}");

    let fixture = Fixture::new();
    fs::write(fixture.file(), format!("{GOOD}route: {{include: [sales.*, public.a], exclude: [public.a]}}\n")).unwrap();
    let expected = "shop: memory-source to memory-sink, 0 streams\n  no streams: the route leaves out all that memory-source has: \
                    public.a, public.b; route.include is [sales.*, public.a], route.exclude is [public.a]\n";
    assert_eq!(plan(&fixture), (Exit::Done, expected.to_owned()));
}

/// Names and texts of others begin no line of their own and reach no terminal as they are.
#[test]
fn what_others_have_named_is_escaped() {
    let fixture = Fixture { world: World::with_streams(&[("a\nb\x1b[31m", 1)]), ..Fixture::new() };
    let (_, text) = fixture.printed(|plugins, out| plan::plan(&[fixture.file()], plugins, out));
    assert!(text.contains("public.\"a\\nb\\u{1b}[31m\" -> cdc.a\\nb\\u{1b}[31m (create"), "{text}");
    let source = Some(Kind::Source);
    let (_, text) = fixture.action(source, Some("capture"), &["table=x\ny\x07"]);
    assert_eq!(text, "table      state\nx\\ny\\u{7}  captured\n");
    let (_, text) = fixture.action(source, Some("cap\nture\x1b"), &[]);
    assert!(text.starts_with("f.yaml: source cap\\nture\\u{1b}: no such action"), "{text}");
    let (_, text) = fixture.action(source, Some("capture"), &["ta\nble=x"]);
    assert!(text.starts_with("f.yaml: source capture: ta\\nble: unknown argument"), "{text}");
    let (_, text) = fixture.printed(|plugins, out| plugins::describe("x\n", plugins, out));
    assert!(text.starts_with("x\\n: no such plugin"), "{text}");
    fs::write(fixture.file(), GOOD.replace("dsn: hunter2", "\"d\\u001b\\nsn\": hunter2")).unwrap();
    let (_, text) = validated(&fixture, false);
    assert!(text.starts_with("f.yaml: source.d\\u{1b}\\nsn: unknown key") && text.lines().count() == 1, "{text}");
}
