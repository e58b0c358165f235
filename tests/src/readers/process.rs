//! The readers' Python processes: how they are installed, started and asked.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::services::java;
use crate::{services, target};

/// PyIceberg and DuckDB.
pub(super) static READ: Process = Process::new(read);

/// Spark.
pub(super) static SPARK: Process = Process::new(spark);

/// Whether Spark is measured.
static MEASURED: AtomicBool = AtomicBool::new(false);

/// A Python process; one for all tests of this process, started at the first request. Its end of input ends it.
pub(super) struct Process {
    command: fn() -> Result<Command>,
    running: Mutex<Option<Running>>,
}

struct Running {
    _child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    const fn new(command: fn() -> Result<Command>) -> Self {
        Self { command, running: Mutex::new(None) }
    }

    /// The answer to a request, as `readers/protocol.py` says it.
    pub(super) fn ask(&self, request: &Value) -> Result<Value> {
        let mut guard = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(Running::start((self.command)()?)?);
        }
        let Some(running) = guard.as_mut() else { bail!("no reader") };
        let answer = running.exchange(request);
        if answer.is_err() {
            *guard = None;
        }
        answer
    }
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the reader has no pipes");
        };
        Ok(Self { _child: child, requests, answers: BufReader::new(answers) })
    }

    fn exchange(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the reader said {line:?} to {request}"))
    }
}

/// Has Spark run as it does where it is used rather than tested: with every core, more memory, and code that is compiled as well as
/// Java can. For what comes before the first question that it is asked.
pub fn measure_with_spark() {
    MEASURED.store(true, Ordering::Relaxed);
}

fn read() -> Result<Command> {
    let mut command = script(&install()?, "read.py");
    command.arg(target::root().join("readers/duckdb"));
    Ok(command)
}

fn spark() -> Result<Command> {
    // Java, too.
    let classpath = java::classpath("spark")?;
    let python = services::venv(&target::root().join("readers/spark"), &source("requirements-spark.txt"))?;
    let mut command = script(&python, "spark.py");
    let log = services::logs_dir()?.join(format!("spark-{}.log", std::process::id()));
    command.arg(classpath).stderr(std::fs::File::create(log)?);
    if MEASURED.load(Ordering::Relaxed) {
        command.arg("measured");
    }
    // Nothing of a Spark that the user has.
    for name in ["SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_PYTHON", "PYSPARK_SUBMIT_ARGS", "PYTHONPATH"] {
        command.env_remove(name);
    }
    Ok(command)
}

fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    // Without a cache of its modules beside them.
    command.arg("-B").arg(source(name));
    command
}

fn source(name: &str) -> PathBuf {
    target::repository().join("tests/readers").join(name)
}

/// The Python with PyIceberg and DuckDB; made where it is missing or out of date.
///
/// # Errors
/// When Python or the packages cannot be installed.
pub fn install() -> Result<PathBuf> {
    services::venv(&target::root().join("readers"), &source("requirements.txt"))
}
