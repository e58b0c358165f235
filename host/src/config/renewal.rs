//! What `${file:…}` stands for is read again whenever an instance is opened: a secret that was
//! replaced on disk is used from the next open on, without a restart. Nothing else of a connector
//! file is read again.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use super::connector::{Endpoint, section_json};
use super::document::{self, Process};
use super::fault::Faults;
use crate::plugin::Kind;

/// The text of a connector file whose section names files, and what the section was when they could
/// last be read.
pub(crate) struct Renewal {
    file: PathBuf,
    text: Arc<str>,
    kind: Kind,
    last: Mutex<Option<String>>,
}

impl Renewal {
    /// `None` where the section names no file.
    pub(super) fn of(kind: Kind, file: &Path, text: &Arc<str>) -> Option<Arc<Self>> {
        let mut document: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
        document.apply_merge().ok()?;
        let section = serde_yaml::to_string(document.get(kind.section())?).ok()?;
        section
            .contains("${file:")
            .then(|| Arc::new(Self { file: file.to_owned(), text: Arc::clone(text), kind, last: Mutex::new(None) }))
    }

    fn read(&self, endpoint: &Endpoint) -> Result<String, String> {
        let mut faults = Faults::new(&self.file);
        let config = document::read(&self.text, &Process, &mut faults)
            .and_then(|root| section_json(root, self.kind, &*endpoint.connector, &mut faults));
        let faults: Vec<String> = faults.into_list().iter().map(ToString::to_string).collect();
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults.join("; ")),
        }
    }
}

impl Endpoint {
    /// Its configuration, with what its files hold at this moment; where they cannot be read, what
    /// they held before.
    pub(crate) fn current(&self) -> Cow<'_, str> {
        let Some(renewal) = &self.renewal else { return Cow::Borrowed(&self.config) };
        let mut last = renewal.last.lock().unwrap_or_else(PoisonError::into_inner);
        match renewal.read(self) {
            Ok(config) => *last = Some(config),
            Err(faults) => warn!(
                faults,
                "the files that the configuration names cannot be used as they are now; going on with what they held"
            ),
        }
        last.clone().map_or(Cow::Borrowed(&*self.config), Cow::Owned)
    }
}
