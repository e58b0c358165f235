//! Faults of a configuration: one line each, all of them collected.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::printable;

/// One thing that is wrong in a connector file. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Where in the file: `sink.catalog.type`; empty where the whole file is meant.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What is allowed; empty where the finding says it (a plugin's own message).
    pub allowed: String,
}

impl Fault {
    /// What a plugin says about its section. A plugin's message begins with the path of its key, so that the section's name before
    /// it makes the path whole.
    pub(crate) fn of_plugin(file: &Path, section: &str, message: &str) -> Self {
        let (key, found) = match message.split_once(": ") {
            Some((key, found)) if !key.is_empty() && !key.contains(char::is_whitespace) => (below(section, key), found),
            _ => (section.to_owned(), message),
        };
        Self { file: file.to_owned(), path: key, found: found.to_owned(), allowed: String::new() }
    }
}

/// `file: key.path: what was found; what is allowed`, on one line.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}: ", self.file.display());
        if !self.path.is_empty() {
            line.push_str(&self.path);
            line.push_str(": ");
        }
        line.push_str(&self.found);
        if !self.allowed.is_empty() {
            line.push_str("; allowed: ");
            line.push_str(&self.allowed);
        }
        f.write_str(&printable::line(&line))
    }
}

/// How many faults of a file are told: nobody reads more, and a stranger's file has as many as it likes.
const MAX_TOLD: usize = 100;
/// The longest word that another one is looked for.
const MAX_WORD: usize = 128;

/// Collects the faults of one file.
#[derive(Debug)]
pub(crate) struct Faults {
    file: PathBuf,
    list: Vec<Fault>,
    /// How many there are, told or not.
    count: usize,
}

impl Faults {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), count: 0 }
    }

    pub(crate) fn add(&mut self, path: impl Into<String>, found: impl Into<String>, allowed: impl Into<String>) {
        self.push(|file| Fault {
            file: file.to_owned(),
            path: path.into(),
            found: found.into(),
            allowed: allowed.into(),
        });
    }

    pub(crate) fn of_plugin(&mut self, section: &str, message: &str) {
        self.push(|file| Fault::of_plugin(file, section, message));
    }

    fn push(&mut self, fault: impl FnOnce(&Path) -> Fault) {
        if self.list.len() < MAX_TOLD {
            self.list.push(fault(&self.file));
        }
        self.count += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Drops the faults after the first `len`: an alternative was tried and did not fit.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
        self.count = self.count.min(len);
    }

    pub(crate) fn into_list(mut self) -> Vec<Fault> {
        let untold = self.count - self.list.len();
        if untold > 0 {
            self.list.push(Fault {
                file: self.file,
                path: String::new(),
                found: format!("{untold} faults more"),
                allowed: String::new(),
            });
        }
        self.list
    }
}

/// The path of `key` below `parent`.
pub(crate) fn below(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// `unknown key`, with the nearest of the known ones where one is near.
pub(crate) fn unknown_key(known: &[&str], key: &str) -> String {
    match nearest(known, key) {
        Some(near) => format!("unknown key, did you mean {near}?"),
        None => "unknown key".to_owned(),
    }
}

/// The known word that is most like `word`, if any is near.
pub(crate) fn nearest<'a>(known: &[&'a str], word: &str) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, word), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 2).clamp(1, 4))
        .min()
        .map(|(_, candidate)| candidate)
}
