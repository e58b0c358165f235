//! A plugin's shared library: loaded, checked and never unloaded.
//!
//! Whatever does not fit is refused here with a message of its own, before any of it is used; there are no warnings. The
//! parts below implement the host's traits over what was accepted. Nothing here retries, routes or decides what an
//! error means.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libloading::os::unix::Library as Shared;
use philotes_sdk::abi::{self, Validation};

use super::Connector;

mod connector;
#[cfg(test)]
mod cut_tests;
mod descriptor;
mod host_table;
mod instance;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use descriptor::Refusal;

/// A library that was refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file_name(.library))]
pub struct LoadError {
    /// The library's file.
    pub library: PathBuf,
    /// Why it was refused.
    pub reason: Refusal,
}

/// A loaded plugin.
pub struct Library {
    path: PathBuf,
    id: String,
    version: String,
    sdk: String,
    target: String,
    connectors: Vec<Arc<dyn Connector>>,
}

impl Library {
    /// Loads a plugin, for as long as the process lives.
    ///
    /// # Errors
    /// What does not fit, in words for the plugin's author.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_inner(path).map_err(|reason| LoadError { library: path.to_owned(), reason })
    }

    fn load_inner(path: &Path) -> Result<Self, Refusal> {
        // A path without a slash would be searched for elsewhere.
        let path = path.canonicalize().map_err(|e| Refusal::Open(e.to_string()))?;
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE;
        // SAFETY: the library's initialisers run; that is what an operator asks for who puts it on the plugin path.
        let library = unsafe { Shared::open(Some(&path), flags) }.map_err(|e| Refusal::Open(chain(&e)))?;
        let descriptor = {
            // SAFETY: the symbol's name stands for this type by the ABI.
            let symbol = unsafe { library.get::<abi::PluginFunction>(abi::SYMBOL.as_bytes()) };
            let function = symbol.map_err(|_| Refusal::NoSymbol)?;
            // SAFETY: the ABI's function takes nothing and may be called from any thread.
            unsafe { function() }
        };
        // Thread-local destructors and released Arrow arrays may still call into it; it stays.
        std::mem::forget(library);
        // SAFETY: by the ABI the pointer is null or valid for ever, with all that it points to.
        let checked = unsafe { descriptor::Checked::read(descriptor) }?;
        let validation = if checked.sdk.starts_with(abi::SDK_PREFIX) { Validation::Shape } else { Validation::Full };
        let connectors = checked
            .connectors
            .into_iter()
            .map(|checked| {
                Arc::new(connector::ForeignConnector::new(checked, path.clone(), validation)) as Arc<dyn Connector>
            })
            .collect();
        let descriptor::Checked { id, version, sdk, target, .. } = checked;
        Ok(Self { path, id, version, sdk, target, connectors })
    }

    /// The library's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The plugin's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The plugin's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it was built with.
    #[must_use]
    pub fn sdk(&self) -> &str {
        &self.sdk
    }

    /// What it was compiled for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its connectors, at least one.
    #[must_use]
    pub fn connectors(&self) -> &[Arc<dyn Connector>] {
        &self.connectors
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
