//! A private PostgreSQL for these tests, in a folder with a short path, gone when the last test that uses it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// A running server.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Server {
    /// The server that all tests share, each in its own database. `None` where PostgreSQL is not installed, which counts as
    /// a failure in CI.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A server of one's own with these settings, `name=value`.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        Self::start_on(settings, 5432)
    }

    /// As [`start`](Self::start), for a server that the settings put on this port.
    pub(crate) fn start_on(settings: &[&str], port: u16) -> Option<Self> {
        let Some(binaries) = binaries() else {
            assert!(std::env::var("CI").is_err(), "PostgreSQL is not installed, and CI must not skip its tests");
            eprintln!("skipped: PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pb").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("d");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let initdb = as_postgres(&binaries.join("initdb"));
        run({ initdb }.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        let mut command = as_postgres(&binaries.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder.path());
        for setting in
            ["listen_addresses=", "port=5432", "fsync=off", "max_connections=200", "track_activity_query_size=1MB"]
                .iter()
                .chain(settings)
        {
            command.arg("-c").arg(setting);
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Self { folder, process, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || {
            run_quietly(
                Command::new(binaries.join("pg_isready"))
                    .arg("-h")
                    .arg(server.folder())
                    .args(["-p", &port.to_string()]),
            )
        };
        while !ready() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    pub(crate) fn dsn(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.folder().display(), self.port)
    }

    pub(crate) async fn connect(&self, database: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.dsn(database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: the server disconnects everybody and ends in order.
        run_quietly(Command::new("kill").arg("-INT").arg(self.process.id().to_string()));
        let _ = self.process.wait();
    }
}

/// The newest of Debian's, or those in the folder that `PHILOTES_POSTGRES` names: for a version
/// that Debian does not have.
fn binaries() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PHILOTES_POSTGRES") {
        return Some(folder.into());
    }
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.into_iter().rev().find(|bin| bin.join("postgres").exists())
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run_quietly(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
