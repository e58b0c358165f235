//! `philotes run`.

use std::process;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{Exit, RunArguments, load_or_print};
use crate::admin::{self, Metrics};
use crate::config::Plugins;
use crate::live::Live;
use crate::logging::Terminal;
use crate::printable::Printable;
use crate::run::{self, RunOptions};
use crate::stop::Stop;

pub(super) fn run(arguments: &RunArguments, plugins: &dyn Plugins, terminal: &Terminal) -> anyhow::Result<Exit> {
    let stop = Stop::default();
    // First of all: until then a signal ends the process as signals do.
    on_signals(&stop, terminal)?;
    let Some(loaded) = load_or_print(&arguments.files, plugins, &mut Printable(std::io::stderr()))? else {
        return Ok(Exit::Config);
    };
    // Without a server nobody would ever read them, so that none are kept.
    let metrics = arguments.listen.as_ref().map(|_| Metrics::install()).transpose()?;
    let options =
        RunOptions { until_idle: arguments.until_idle, grace: arguments.grace, max_memory: arguments.max_memory };
    let running = match run::start(&loaded.connectors, &options, &stop) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(kind = error.kind().name(), error = %error, "cannot start");
            return Ok(Exit::of(&error));
        }
    };
    if let (Some(address), Some(metrics)) = (&arguments.listen, metrics)
        && let Err(error) = admin::serve(address, running.status(), metrics)
    {
        tracing::error!(address, error = %error, "cannot listen");
        stop.raise();
        running.wait();
        return Ok(Exit::Failed);
    }
    let live = Live::start(terminal.clone(), running.status());
    let all_well = running.wait();
    drop(live);
    Ok(if all_well { Exit::Done } else { Exit::Failed })
}

/// How soon after the first signal another one is the same stop: supervisors and terminals send some twice, and by two ways.
const SAME_STOP: Duration = Duration::from_secs(1);

/// The first SIGTERM or SIGINT raises `stop`, a later one ends the process. SIGHUP ends nothing.
fn on_signals(stop: &Stop, terminal: &Terminal) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt, mut hang_up) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let (stop, terminal) = (stop.clone(), terminal.clone());
    let body = move || {
        runtime.block_on(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("SIGTERM", 15),
                    _ = interrupt.recv() => ("SIGINT", 2),
                    _ = hang_up.recv() => {
                        info!(signal = "SIGHUP", "ignored: connector files are read at the start only; restart the host for changes");
                        continue;
                    }
                };
                match stop.since().map(|since| since.elapsed()) {
                    None => {
                        info!(signal = name, "stopping");
                        stop.raise();
                    }
                    Some(ago) if ago < SAME_STOP => {
                        info!(signal = name, "within a second of the first signal: it is taken for the same stop");
                    }
                    Some(_) => {
                        terminal.show(Vec::new());
                        warn!(signal = name, "a second signal: ending at once; what is not committed will be read again");
                        process::exit(128 + number);
                    }
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(body)?;
    Ok(())
}
