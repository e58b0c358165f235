//! The plugins that were found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Connector, Kind, Library, LoadError};

/// The connectors of all libraries on the plugin path, and what was left out.
#[derive(Default)]
pub struct Registry {
    connectors: BTreeMap<(Kind, String), Arc<dyn Connector>>,
    refused: Vec<LoadError>,
    shadowed: Vec<Shadowed>,
}

/// A connector that another library offers as well, which was found first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Source or sink.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whose is used.
    pub used: PathBuf,
    /// Whose is not.
    pub ignored: PathBuf,
}

impl Registry {
    /// Loads every `*.so` in these directories, the first directory first, names in order. A missing directory is fine.
    #[must_use]
    pub fn discover(dirs: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for library in dirs.iter().flat_map(|dir| libraries(dir)) {
            match Library::load(&library) {
                Ok(library) => registry.add(&library),
                Err(error) => {
                    tracing::debug!(library = %library.display(), "left out: {error}");
                    registry.refused.push(error);
                }
            }
        }
        registry
    }

    /// Adds the connectors of a library; where there is one of the same kind and name, that stays.
    pub fn add(&mut self, library: &Library) {
        for connector in library.connectors() {
            let key = (connector.kind(), connector.name().to_owned());
            match self.connectors.get(&key) {
                // The same file on two paths is no conflict.
                Some(used) if used.library() == connector.library() => {}
                Some(used) => {
                    let used = used.library().to_owned();
                    let ignored = connector.library().to_owned();
                    tracing::warn!(
                        connector = key.1,
                        used = %used.display(),
                        ignored = %ignored.display(),
                        "two libraries offer this connector; the first one found is used"
                    );
                    self.shadowed.push(Shadowed { kind: key.0, name: key.1, used, ignored });
                }
                None => {
                    self.connectors.insert(key, Arc::clone(connector));
                }
            }
        }
    }

    /// The connector of this kind and name.
    #[must_use]
    pub fn connector(&self, kind: Kind, name: &str) -> Option<Arc<dyn Connector>> {
        self.connectors.get(&(kind, name.to_owned())).cloned()
    }

    /// All connectors, sources first, by name.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.connectors.values()
    }

    /// The files that are no plugins for this host, and why.
    #[must_use]
    pub fn refused(&self) -> &[LoadError] {
        &self.refused
    }

    /// The connectors that are not used because another library's came first.
    #[must_use]
    pub fn shadowed(&self) -> &[Shadowed] {
        &self.shadowed
    }
}

fn libraries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "so") && path.is_file())
        .collect();
    files.sort();
    files
}
