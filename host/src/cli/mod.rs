//! The command line: what an operator types, and the exit code it ends with.
//!
//! Results and faults that were asked for go to stdout; logs, and faults that keep `run` from starting, to stderr.

mod action;
mod plan;
mod plugins;
mod run;
mod table;
mod validate;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use philotes_sdk::{Error, ErrorKind};

use crate::allocator;
use crate::config::{Loaded, Plugins, Process, load};
use crate::logging::{self, LogFormat};
use crate::plugin::Kind;
use crate::printable::{self, Printable};
use crate::{admin, libraries};
use philotes_sdk::quantity::{DURATION, SIZE, duration, size};

/// A connector host: moves streams of changes from sources to sinks, each row once.
///
/// Exit codes: 0 done, 1 failed, 2 configuration; 128 + n when a second signal n ended it at once.
#[derive(Parser)]
#[command(name = "philotes", version, propagate_version = true)]
struct Cli {
    /// A directory with plugins, before $PHILOTES_PLUGIN_PATH, the executable's directory and /usr/lib/philotes/plugins.
    #[arg(long, global = true, value_name = "DIR")]
    plugin_path: Vec<PathBuf>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or target=level; $PHILOTES_LOG where it is missing.
    #[arg(long, global = true, value_name = "FILTER")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs connectors.
    ///
    /// SIGTERM or SIGINT stops polling, flushes, commits, acknowledges and exits with 0 within the grace period (1 if something
    /// could not be flushed: it is read again at the next start). A second signal, a second later or more, ends the process at once.
    /// SIGHUP is ignored.
    Run(RunArguments),
    /// Checks connector files: a line per fault and exit code 2, or OK and 0.
    Validate {
        /// Also tries to reach what the files name, and looks for streams that meet in one table.
        #[arg(long)]
        connect: bool,
        /// Connector files, or directories of them.
        #[arg(required = true, value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
    /// Shows which tables a connector would create or alter; writes nothing.
    Plan {
        /// Connector files, or directories of them.
        #[arg(required = true, value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
    /// Shows which plugins there are.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Asks a running host's /healthz: 0 when it is well.
    Health {
        /// What `--listen` was given.
        #[arg(value_name = "ADDR")]
        address: String,
    },
    /// Does what a plugin offers beside moving data; without NAME, lists it.
    Action {
        /// The connector's file.
        file: PathBuf,
        /// Which end.
        end: Option<End>,
        /// The action.
        name: Option<String>,
        /// Its arguments.
        #[arg(value_name = "KEY=VALUE")]
        arguments: Vec<String>,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// End with 0 once every source is drained and all is committed.
    #[arg(long)]
    until_idle: bool,
    /// Serve /healthz, /readyz, /status and /metrics here: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How long a stop may take.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    grace: Duration,
    /// The memory of all tasks together: queued rows and writers' buffers.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    max_memory: u64,
    /// Connector files, or directories of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum PluginsCommand {
    /// Lists the sources and sinks that were found.
    List,
    /// Describes a source or sink: configuration and actions.
    Describe {
        /// What `plugin:` says in YAML.
        name: String,
    },
    /// Says whether a library is a plugin that this host can load.
    Check {
        /// The shared library.
        library: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum End {
    Source,
    Sink,
}

impl From<End> for Kind {
    fn from(end: End) -> Self {
        match end {
            End::Source => Self::Source,
            End::Sink => Self::Sink,
        }
    }
}

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 1.
    Failed,
    /// 2.
    Config,
}

impl Exit {
    fn of(error: &Error) -> Self {
        if error.kind() == ErrorKind::Config { Self::Config } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Config => 2,
        })
    }
}

/// Parses the command line and does what it says.
///
/// # Errors
/// When stdout cannot be written, or the process cannot be set up.
pub fn main() -> anyhow::Result<Exit> {
    allocator::share_heaps();
    let cli = Cli::parse();
    // Only `run` is about what happens meanwhile; elsewhere the log would get between the lines of the result.
    let quiet = !matches!(cli.command, Command::Run(_)) && !logging::level_is_set();
    let level = cli.log_level.as_deref().or(quiet.then_some("warn"));
    let terminal = match logging::start(cli.log_format, level) {
        Ok(terminal) => terminal,
        Err(message) => {
            eprintln!("--log-level: {}", printable::line(&message));
            return Ok(Exit::Config);
        }
    };
    let mut out = Printable(std::io::stdout().lock());
    if let Command::Health { address } = &cli.command {
        return Ok(match admin::health(address) {
            Ok(()) => Exit::Done,
            Err(message) => {
                eprintln!("{}", printable::lines(&message));
                Exit::Failed
            }
        });
    }
    if let Command::Plugins(PluginsCommand::Check { library }) = &cli.command {
        return plugins::check(library, &mut out);
    }
    let plugins = match libraries::discover(&cli.plugin_path) {
        Ok(plugins) => plugins,
        Err(message) => {
            eprintln!("{}", printable::line(&message));
            return Ok(Exit::Config);
        }
    };
    match &cli.command {
        Command::Run(arguments) => run::run(arguments, &plugins, &terminal),
        Command::Validate { connect, files } => validate::validate(files, *connect, &plugins, &mut out),
        Command::Plan { files } => plan::plan(files, &plugins, &mut out),
        Command::Plugins(PluginsCommand::List) => plugins::list(&plugins, &mut out),
        Command::Plugins(PluginsCommand::Describe { name }) => plugins::describe(name, &plugins, &mut out),
        Command::Action { file, end, name, arguments } => {
            action::action(file, end.map(Kind::from), name.as_deref(), arguments, &plugins, &mut out)
        }
        Command::Health { .. } | Command::Plugins(PluginsCommand::Check { .. }) => Ok(Exit::Done),
    }
}

/// Loads files; the faults are printed, one line each.
fn load_or_print(files: &[PathBuf], plugins: &dyn Plugins, out: &mut dyn Write) -> std::io::Result<Option<Loaded>> {
    let loaded = load(files, plugins, &Process);
    for fault in &loaded.faults {
        writeln!(out, "{fault}")?;
    }
    Ok(loaded.faults.is_empty().then_some(loaded))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| format!("allowed: {DURATION}"))
}

fn parse_size(text: &str) -> Result<u64, String> {
    size(text).filter(|bytes| *bytes >= 16 << 20).ok_or_else(|| format!("allowed: {SIZE}, at least 16 MiB"))
}
