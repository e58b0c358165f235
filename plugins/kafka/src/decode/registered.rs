//! What the formats of a schema registry share: schemas by their ids, each made ready once.

use std::collections::HashMap;
use std::sync::Arc;

use philotes_sdk::Error;

use super::Refusal;
use super::batch::Layout;
use super::column::ColumnSpec;
use super::topic::Topic;
use crate::registry::{Language, Registered, Registry};

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum Failure {
    /// By what it says.
    Refused(Refusal),
    /// By what the registry says, or does not say.
    Registry(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Schemas of one topic by their ids, as whatever a format makes of them.
pub(super) struct Schemas<T> {
    registry: Arc<Registry>,
    language: Language,
    known: HashMap<u32, Result<Arc<T>, String>>,
}

impl<T> Schemas<T> {
    pub(super) fn new(registry: Arc<Registry>, language: Language) -> Self {
        Self { registry, language, known: HashMap::new() }
    }

    /// The schema of this id; `make` makes it ready where it is new, or says why that cannot be.
    pub(super) fn get(
        &mut self,
        id: u32,
        make: impl FnOnce(&Registered) -> Result<T, String>,
    ) -> Result<Arc<T>, Failure> {
        if !self.known.contains_key(&id) {
            let registered = self.registry.schema(id).map_err(Failure::Registry)?;
            let made = if registered.language == self.language {
                make(&registered)
            } else {
                Err(format!("it is written in {}, and the format is for {}", registered.language, self.language))
            };
            self.known.insert(id, made.map(Arc::new));
        }
        match self.known.get(&id) {
            Some(Ok(schema)) => Ok(Arc::clone(schema)),
            Some(Err(why)) => Err(Refusal::said(format!("schema {id} of the registry cannot be used: {why}")).into()),
            None => Err(Refusal::new("its schema is not known").into()),
        }
    }

    /// The id of the newest schema of the topic's values, by the name that clients give it; `None` where there is none.
    pub(super) fn newest(&self, topic: &str) -> Result<Option<u32>, Failure> {
        self.registry.newest(&format!("{topic}-value")).map_err(Failure::Registry)
    }
}

/// The layouts that rows of a topic have had.
#[derive(Default)]
pub(super) struct Layouts {
    /// By the id of their schema.
    known: Vec<(u32, Arc<Layout>)>,
    /// The one used last.
    last: usize,
}

impl Layouts {
    pub(super) fn last(&self) -> Option<&Arc<Layout>> {
        self.known.get(self.last).map(|(_, layout)| layout)
    }

    /// The layout of a schema's columns with this key. Schemas with the same columns share one.
    pub(super) fn get(
        &mut self,
        topic: &mut Topic,
        id: u32,
        columns: &[ColumnSpec],
        key: &Arc<[String]>,
    ) -> Result<Arc<Layout>, Refusal> {
        let is = |(known, layout): &(u32, Arc<Layout>)| *known == id && layout.key == *key;
        if !self.known.get(self.last).is_some_and(is) {
            self.last = match self.known.iter().position(is) {
                Some(at) => at,
                None => {
                    let same = self.known.iter().find(|(_, layout)| layout.key == *key && layout.columns == columns);
                    let layout = match same {
                        Some((_, layout)) => Arc::clone(layout),
                        None => topic.layout(columns.to_vec(), Arc::clone(key))?,
                    };
                    self.known.push((id, layout));
                    self.known.len() - 1
                }
            };
        }
        Ok(Arc::clone(&self.known[self.last].1))
    }
}
