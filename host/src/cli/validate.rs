//! `philotes validate`.

use std::io::Write;
use std::path::PathBuf;

use philotes_sdk::Error;

use super::plan::{collisions, planned};
use super::{Exit, Plugins};
use crate::config::{ConnectorConfig, Fault, Process, load};
use crate::plugin::Kind;
use crate::run::single_task;

/// A line per fault and exit code 2, or a line per file that says OK.
pub(super) fn validate(
    files: &[PathBuf],
    connect: bool,
    plugins: &dyn Plugins,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let loaded = load(files, plugins, &Process);
    let mut faults = loaded.faults;
    if connect {
        faults.extend(loaded.connectors.iter().flat_map(connect_faults));
    }
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    for file in loaded.files.iter().filter(|file| faults.iter().all(|fault| fault.file != **file)) {
        writeln!(out, "{}: OK", file.display())?;
    }
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Config })
}

/// What keeps a connector from reaching its servers; if nothing does, which of its streams meet in one table.
fn connect_faults(connector: &ConnectorConfig) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (end, endpoint) in [(Kind::Source, &connector.source), (Kind::Sink, &connector.sink)] {
        if let Err(error) = endpoint.connector.check(&endpoint.config, &single_task(connector, end)) {
            faults.push(plugin_fault(connector, end, &error));
        }
    }
    if faults.is_empty() {
        match planned(connector) {
            Ok(plans) => faults.extend(collisions(connector, &plans)),
            Err((end, error)) => faults.push(plugin_fault(connector, end, &error)),
        }
    }
    faults
}

/// A plugin's error as a fault: its message begins with the path of a key where it has one.
pub(super) fn plugin_fault(connector: &ConnectorConfig, end: Kind, error: &Error) -> Fault {
    let section = crate::status::end_name(end);
    Fault::of_plugin(&connector.file, section, &error.to_string())
}
