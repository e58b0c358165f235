//! Where plugins are looked for, and what was found there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Plugins;
use crate::plugin::{Connector, Kind, Library, LoadError, Registry};

/// The environment variable with directories, separated by colons.
const VARIABLE: &str = "PHILOTES_PLUGIN_PATH";
/// Where a package installs plugins.
const INSTALLED: &str = "/usr/lib/philotes/plugins";

/// The plugins on the plugin path.
pub struct Libraries {
    registry: Registry,
    directories: Vec<PathBuf>,
}

/// Loads what is in `--plugin-path`, $PHILOTES_PLUGIN_PATH, beside the executable and where packages install plugins.
///
/// # Errors
/// When a directory of `--plugin-path` does not exist.
pub fn discover(plugin_path: &[PathBuf]) -> Result<Libraries, String> {
    if let Some(missing) = plugin_path.iter().find(|path| !path.is_dir()) {
        return Err(format!("--plugin-path: {} is no directory; allowed: a directory with plugins", missing.display()));
    }
    let mut directories = plugin_path.to_vec();
    if let Some(variable) = std::env::var_os(VARIABLE) {
        directories.extend(std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty()));
    }
    directories.extend(std::env::current_exe().ok().as_deref().and_then(Path::parent).map(Path::to_owned));
    directories.push(PathBuf::from(INSTALLED));
    Ok(Libraries { registry: Registry::discover(&directories), directories })
}

/// Loads one library.
///
/// # Errors
/// Why it is no plugin for this host.
pub fn open(library: &Path) -> Result<Vec<Arc<dyn Connector>>, LoadError> {
    Library::load(library).map(|library| library.connectors().to_vec())
}

impl Plugins for Libraries {
    fn connector(&self, kind: Kind, name: &str) -> Option<Arc<dyn Connector>> {
        self.registry.connector(kind, name)
    }

    fn all(&self) -> Vec<Arc<dyn Connector>> {
        self.registry.connectors().cloned().collect()
    }

    fn searched(&self) -> String {
        let directories: Vec<String> = self.directories.iter().map(|path| path.display().to_string()).collect();
        let mut text = format!(" (searched in {}", directories.join(", "));
        for refused in self.registry.refused() {
            text.push_str(&format!("; refused {refused}"));
        }
        text.push(')');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_said() {
        let Err(message) = discover(&[PathBuf::from("/nonexistent/plugins")]) else { panic!("it was accepted") };
        assert!(message.starts_with("--plugin-path: /nonexistent/plugins is no directory"), "{message}");
    }

    #[test]
    fn what_is_no_plugin_is_refused_and_named_where_one_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("broken.so"), "no library").unwrap();
        let Err(error) = open(&dir.path().join("broken.so")) else { panic!("it was accepted") };
        assert!(error.to_string().contains("broken.so"), "{error}");
        let found = discover(&[dir.path().to_owned()]).unwrap();
        assert!(found.searched().contains("; refused broken.so: "), "{}", found.searched());
        assert!(found.searched().starts_with(&format!(" (searched in {}, ", dir.path().display())));
    }
}
