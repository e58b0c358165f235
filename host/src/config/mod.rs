//! Connector files: YAML in, checked connectors or faults out.
//!
//! The order is: parse, expand variables in scalars, check each plugin's section against its configuration spec, let the
//! plugin say what the values mean. All faults of all files are collected, one line each. Touches no server.

mod bounded;
mod connector;
mod document;
mod fault;
mod renewal;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use connector::{CommitPolicy, ConnectorConfig, Endpoint, RestartPolicy, RetryPolicy};
pub use document::{Process, Variables};
pub use fault::Fault;

pub(crate) use fault::nearest;
pub(crate) use renewal::Renewal;
pub(crate) use schema::is_secret;

use crate::plugin::{Connector, Kind};
use fault::Faults;

/// The connectors that plugins offer.
pub trait Plugins {
    /// The connector of this kind and name.
    fn connector(&self, kind: Kind, name: &str) -> Option<Arc<dyn Connector>>;
    /// All of them, by name.
    fn all(&self) -> Vec<Arc<dyn Connector>>;
    /// Where they were looked for, to be appended to the names in a fault: ` (searched in …)`, or nothing.
    fn searched(&self) -> String;
}

/// What files held.
#[derive(Default)]
pub struct Loaded {
    /// The connectors without a fault.
    pub connectors: Vec<ConnectorConfig>,
    /// What is wrong, file by file.
    pub faults: Vec<Fault>,
    /// Every file that was read, in order.
    pub files: Vec<PathBuf>,
}

/// Loads files, and of directories every `*.yaml` and `*.yml`, sorted by name.
pub fn load(paths: &[PathBuf], plugins: &dyn Plugins, variables: &dyn Variables) -> Loaded {
    let mut loaded = Loaded::default();
    for path in paths {
        match files(path) {
            Ok(files) => loaded.files.extend(files),
            Err(fault) => {
                loaded.files.push(path.clone());
                loaded.faults.push(fault);
            }
        }
    }
    for file in loaded.files.clone() {
        if loaded.faults.iter().any(|fault| fault.file == file) {
            continue;
        }
        let mut faults = Faults::new(&file);
        let connector = load_file(&file, plugins, variables, &mut faults);
        if let Some(connector) = connector {
            match loaded.connectors.iter().find(|other| other.name == connector.name) {
                Some(other) => faults.add(
                    "name",
                    format!("{:?} is the name of the connector in {} as well", connector.name, other.file.display()),
                    "a name of its own for each connector of a host",
                ),
                None => loaded.connectors.push(connector),
            }
        }
        loaded.faults.extend(faults.into_list());
    }
    loaded
}

fn load_file(
    file: &Path,
    plugins: &dyn Plugins,
    variables: &dyn Variables,
    faults: &mut Faults,
) -> Option<ConnectorConfig> {
    let text = match document::file_text(file) {
        Ok(text) => text,
        Err(error) => {
            faults.add("", format!("cannot be read: {error}"), "a readable file of UTF-8 text");
            return None;
        }
    };
    let root = document::read(&text, variables, faults)?;
    let mut connector = connector::read(file, root, plugins, faults)?;
    let text = Arc::from(text);
    connector.source.renewal = Renewal::of(Kind::Source, file, &text);
    connector.sink.renewal = Renewal::of(Kind::Sink, file, &text);
    Some(connector)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    let fault = |found: String, allowed: &str| Fault {
        file: path.to_owned(),
        path: String::new(),
        found,
        allowed: allowed.to_owned(),
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(format!("cannot be read: {error}"), "a readable directory"))?;
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        // What starts the servers may lie beside the connectors.
        .filter(|file| !file.file_stem().is_some_and(|name| name == "compose" || name == "docker-compose"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(fault("the directory holds no connector".to_owned(), "files named *.yaml or *.yml"));
    }
    Ok(files)
}

/// What tests/fuzz reads connector files with.
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz {
    use super::document::{self, Node, Variables};
    pub(crate) use super::fault::{Faults, nearest};
    pub(crate) use super::schema::check;

    struct Nothing;

    impl Variables for Nothing {
        fn env(&self, name: &str) -> Option<String> {
            (name == "A").then(|| "a".repeat(1 << 10))
        }

        fn file(&self, _: &str) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    pub(crate) fn read(text: &str, faults: &mut Faults) -> Option<Node> {
        document::read(text, &Nothing, faults)
    }
}

#[cfg(test)]
mod tests;
