//! The binary as a process: exit codes, signals, logs. The plugins are the in-memory ones, loaded as shared libraries.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MEMORY: &str = "name: memory
source: {plugin: memory, store: s, rows: 5000}
sink: {plugin: memory, store: t}
commit: {interval: 20ms}
";

/// A source whose polls last until they are cancelled.
const WAITING: &str = "name: waiting
source: {plugin: probe, wait: true}
sink: {plugin: probe, wait: true}
";

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// A folder with the plugins and this connector.
    fn new(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let built = std::env::current_exe().unwrap();
        for plugin in ["libphilotes_memory.so", "libphilotes_probe.so"] {
            std::fs::copy(built.with_file_name(plugin), dir.path().join(plugin)).unwrap();
        }
        std::fs::write(dir.path().join("c.yaml"), yaml).unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("c.yaml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_philotes"));
        command.arg("--plugin-path").arg(self.dir.path()).args(arguments).arg(self.file());
        command.env_remove("PHILOTES_LOG").env_remove("RUST_LOG").env_remove("PHILOTES_PLUGIN_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// Waits until a line of the child's log holds this; gives back what the log said until then.
fn wait_for_log(child: &mut Child, what: &str) -> String {
    use std::io::Read;
    let mut log = Vec::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !text(&log).contains(what) {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "the log ended without {what:?}: {}", text(&log));
        log.push(byte[0]);
    }
    text(&log)
}

#[test]
fn until_idle_ends_with_0_and_a_summary() {
    let output = Fixture::new(MEMORY).output(&["run", "--until-idle"]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("ended") && last.contains("rows=5000") && last.contains("finished"), "{log}");
    // A time in UTC, no control characters, and nothing on stdout.
    assert!(last.contains('T') && last.split(' ').next().unwrap().ends_with('Z'), "{last}");
    assert!(!log.contains('\x1b') && output.stdout.is_empty());
}

#[test]
fn sigterm_and_sigint_end_with_0() {
    for name in ["TERM", "INT"] {
        let fixture = Fixture::new(MEMORY);
        let mut child = fixture.command(&["run", "--log-format", "json", "--log-level", "debug"]).spawn().unwrap();
        let mut log = wait_for_log(&mut child, "flushed");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        log.push_str(&text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{log}");
        let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((&last["fields"]["message"], &last["fields"]["state"]), (&"ended".into(), &"stopped".into()));
        assert_eq!(last["fields"]["rows"], 5000);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let fixture = Fixture::new(WAITING);
    let mut child = fixture.command(&["run", "--log-level", "debug"]).spawn().unwrap();
    wait_for_log(&mut child, "starting");
    // The poll goes on until it is cancelled, which a stop does not do before its grace period is nearly over.
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "TERM");
    wait_for_log(&mut child, "stopping");
    // Within a second it is the same stop.
    signal(&child, "INT");
    wait_for_log(&mut child, "taken for the same stop");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, "TERM");
    let started = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// The process does not outlive the grace period, and says that it could not flush.
#[test]
fn a_stop_within_the_grace_period() {
    let fixture = Fixture::new(WAITING);
    let mut child = fixture.command(&["run", "--grace", "1s"]).spawn().unwrap();
    wait_for_log(&mut child, "starting");
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "TERM");
    let started = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    let failed = log.lines().find(|line| line.contains("FAILED")).unwrap_or_else(|| panic!("{log}"));
    assert!(failed.contains("end=\"source\"") && failed.contains("poll has not returned"), "{failed}");
    assert!(failed.contains("not everything was flushed"), "{failed}");
}

#[test]
fn a_hang_up_ends_nothing() {
    let fixture = Fixture::new(MEMORY);
    let mut child = fixture.command(&["run", "--log-level", "debug"]).spawn().unwrap();
    wait_for_log(&mut child, "flushed");
    signal(&child, "HUP");
    let log = wait_for_log(&mut child, "SIGHUP");
    let log = log + &wait_for_log(&mut child, "\n");
    assert!(log.contains("ignored: connector files are read at the start only"), "{log}");
    signal(&child, "HUP");
    wait_for_log(&mut child, "SIGHUP");
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

/// A plugin's panic is one event with fields, and nothing else is printed of it.
#[test]
fn a_panic_of_a_plugin_is_one_line() {
    let yaml = "name: bad\nsource: {plugin: probe, panic_in: poll}\nsink: {plugin: probe}\n";
    let fixture = Fixture::new(yaml);
    let output = fixture.command(&["run", "--until-idle"]).env("RUST_BACKTRACE", "0").output().unwrap();
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked at") && !log.contains("RUST_BACKTRACE"), "{log}");
    assert!(log.lines().all(|line| line.split(' ').next().unwrap().ends_with('Z')), "{log}");
    let panics: Vec<&str> = log.lines().filter(|line| line.contains(": panicked ")).collect();
    let [line] = &panics[..] else { panic!("{log}") };
    for part in [
        "ERROR task{connector=\"bad\" task=0}: plugin: panicked",
        "plugin_target=\"panic\"",
        "probe/src/lib.rs:",
        "as asked for\\n",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }

    let output = fixture.command(&["run", "--until-idle", "--log-format", "json"]).output().unwrap();
    let log = text(&output.stderr);
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = events.iter().find(|event| event["fields"]["message"] == "panicked").unwrap_or_else(|| panic!("{log}"));
    assert!(event["fields"]["panic"].as_str().unwrap().contains("as asked for\n"), "{event}");
    assert!(event["fields"]["location"].as_str().unwrap().contains("probe/src/lib.rs:"), "{event}");
    assert_eq!((&event["level"], &event["span"]["connector"]), (&"ERROR".into(), &"bad".into()));
}

/// The fields of a plugin's events are fields of the host's log, in both formats.
#[test]
fn fields_of_plugins_are_fields() {
    // Kind 3 is Data: it ends.
    let fixture =
        Fixture::new("name: bad\nsource: {plugin: probe, fail_in: poll, fail_kind: 3}\nsink: {plugin: probe}\n");
    let log = text(&fixture.output(&["run", "--until-idle"]).stderr);
    let opened = "plugin: opened plugin_target=\"philotes_probe\" answer=42 name=\"probe\"";
    assert!(log.lines().any(|line| line.ends_with(opened)), "{log}");
    let log = text(&fixture.output(&["run", "--until-idle", "--log-format", "json"]).stderr);
    let mut events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let event = events.find(|event| event["fields"]["message"] == "opened").unwrap_or_else(|| panic!("{log}"));
    let fields =
        serde_json::json!({"message": "opened", "plugin_target": "philotes_probe", "answer": 42, "name": "probe"});
    assert_eq!(event["fields"], fields);
}

#[test]
fn a_failed_connector_ends_with_1() {
    // Kind 3 is Data.
    let yaml = "name: bad\nsource: {plugin: probe, fail_in: poll, fail_kind: 3}\nsink: {plugin: probe}\n";
    let output = Fixture::new(yaml).output(&["run", "--until-idle"]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("FAILED")).collect();
    assert_eq!(failed.len(), 1, "{log}");
    assert!(failed[0].contains("kind=\"data\"") && failed[0].contains("poll fails as asked for"), "{log}");
}

#[test]
fn faults_of_the_configuration_end_with_2() {
    let fixture = Fixture::new("name: X\nsource: {plugin: memory, stroe: s}\nsink: {plugin: memory, store: t}\n");
    let run = fixture.output(&["run"]);
    assert_eq!(run.status.code(), Some(2));
    let log = text(&run.stderr);
    let faults: Vec<&str> = log.lines().filter(|line| line.contains("c.yaml: ")).collect();
    assert_eq!(faults.len(), 3, "{log}");
    let validate = fixture.output(&["validate"]);
    assert_eq!(validate.status.code(), Some(2));
    assert_eq!(text(&validate.stdout).lines().collect::<Vec<_>>(), faults);
    assert!(text(&validate.stdout).contains("c.yaml: source.stroe: unknown key, did you mean store?"));
    assert_eq!(fixture.output(&["run", "--grace", "soon"]).status.code(), Some(2));
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Fixture::new(MEMORY).output(&["run", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot listen"), "{}", text(&output.stderr));
}
