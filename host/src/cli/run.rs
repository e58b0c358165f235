//! `philotes run`.

use std::process;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{Exit, RunArguments, load_or_print};
use crate::admin::{self, Metrics};
use crate::config::Plugins;
use crate::live::Live;
use crate::logging::Terminal;
use crate::run::{self, RunOptions};
use crate::stop::Stop;

pub(super) fn run(arguments: &RunArguments, plugins: &dyn Plugins, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(loaded) = load_or_print(&arguments.files, plugins, &mut std::io::stderr())? else {
        return Ok(Exit::Config);
    };
    // Without a server nobody would ever read them, so that none are kept.
    let metrics = arguments.listen.as_ref().map(|_| Metrics::install()).transpose()?;
    let stop = Stop::default();
    on_signals(&stop, terminal)?;
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

/// The first SIGTERM or SIGINT raises `stop`, a second one ends the process.
fn on_signals(stop: &Stop, terminal: &Terminal) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (stop, terminal) = (stop.clone(), terminal.clone());
    let body = move || {
        runtime.block_on(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("SIGTERM", 15),
                    _ = interrupt.recv() => ("SIGINT", 2),
                };
                if stop.is_raised() {
                    terminal.show(Vec::new());
                    warn!(signal = name, "a second signal: ending at once; what is not committed will be read again");
                    process::exit(128 + number);
                }
                info!(signal = name, "stopping");
                stop.raise();
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(body)?;
    Ok(())
}
