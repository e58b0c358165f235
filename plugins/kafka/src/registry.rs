//! A schema registry in Confluent's manner: schemas by the id that messages name.
//!
//! An id means one schema for ever, so a schema is asked for once. Nothing is registered here, and nothing is known of what
//! the schemas say.

mod answer;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use philotes_sdk::{Error, ErrorKind, Result, Secret};
use reqwest::{Client, Url};
use tokio::runtime::Handle;

use crate::config::RegistryConfig;
use crate::http;
use answer::{Answer, Reference};

/// How long an id or a subject stays unknown: so that a stream of messages that name it is no stream of requests.
const UNKNOWN_TIME: Duration = Duration::from_secs(10);
/// How many schemas one may refer to, directly and by others.
const MOST_REFERENCES: usize = 256;

/// What a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Avro,
    JsonSchema,
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Avro => "Avro",
            Self::JsonSchema => "JSON Schema",
        })
    }
}

/// A schema as it was registered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) id: u32,
    pub(crate) language: Language,
    pub(crate) text: String,
    /// What it refers to, directly and by others, each behind those that it needs itself.
    pub(crate) references: Vec<Referred>,
}

/// A schema that another one refers to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Referred {
    /// The name by which it is referred to.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The client of a registry, and what it knows of it already.
pub(crate) struct Registry {
    client: Client,
    url: Url,
    credentials: Option<(String, Option<Secret>)>,
    runtime: Handle,
    known: Mutex<HashMap<u32, Known>>,
    /// Subjects that it has not, and how long that is believed.
    unknown: Mutex<HashMap<String, Instant>>,
}

enum Known {
    Schema(Arc<Registered>),
    /// Nothing that can be read has this id.
    Nothing {
        why: String,
        until: Instant,
    },
}

impl Registry {
    /// The client of the registry that the configuration names. Nothing is asked yet.
    ///
    /// # Errors
    /// Config where there is no such registry, by the configuration alone.
    pub(crate) fn new(config: &RegistryConfig, runtime: Handle) -> Result<Self> {
        let timeout = config.timeout().ok_or_else(|| Error::config("registry.timeout: not a duration"))?;
        Ok(Self {
            client: http::client(timeout, config.tls_ca.as_deref(), "registry.tls_ca")?,
            url: server(&config.url)?,
            credentials: config.username.clone().map(|user| (user, config.password.clone())),
            runtime,
            known: Mutex::default(),
            unknown: Mutex::default(),
        })
    }

    /// Makes it know this schema alone, and that there is no such subject.
    #[cfg(feature = "fuzz")]
    pub(crate) fn knows_only(&self, id: u32, language: Language, text: &str, no_subject: &str) {
        let schema = Registered { id, language, text: text.to_owned(), references: Vec::new() };
        *self.known() = HashMap::from([(id, Known::Schema(Arc::new(schema)))]);
        *self.unknown() = HashMap::from([(no_subject.to_owned(), Instant::now() + Duration::from_secs(3600))]);
    }

    /// The schema with this id. Blocks while the registry is asked, so it must not be called on a thread of the runtime.
    ///
    /// # Errors
    /// Data where no schema that can be read has this id, Unavailable where the registry is out of reach, Config where it does not
    /// let us in or is none.
    pub(crate) fn schema(&self, id: u32) -> Result<Arc<Registered>> {
        match self.known().get(&id) {
            Some(Known::Schema(schema)) => return Ok(schema.clone()),
            Some(Known::Nothing { why, until }) if Instant::now() < *until => return Err(Error::data(why.as_str())),
            _ => {}
        }
        match self.runtime.block_on(self.ask_for(id)) {
            Ok(schema) => {
                let schema = Arc::new(schema);
                self.known().insert(id, Known::Schema(schema.clone()));
                Ok(schema)
            }
            Err(error) => {
                if error.kind() == ErrorKind::Data {
                    let until = Instant::now() + UNKNOWN_TIME;
                    self.known().insert(id, Known::Nothing { why: error.to_string(), until });
                }
                Err(error)
            }
        }
    }

    /// The id of a subject's newest schema; `None` where the registry has no such subject. Blocks as [`schema`](Self::schema) does.
    ///
    /// # Errors
    /// Unavailable where the registry is out of reach, Config where it does not let us in or is none.
    pub(crate) fn newest(&self, subject: &str) -> Result<Option<u32>> {
        if self.unknown().get(subject).is_some_and(|until| Instant::now() < *until) {
            return Ok(None);
        }
        let what = format!("the newest version of subject {subject:?}");
        match self.runtime.block_on(self.get(&["subjects", subject, "versions", "latest"], &what)) {
            Ok(answer) => Ok(answer.id),
            Err(error) if error.kind() == ErrorKind::Data => {
                self.unknown().insert(subject.to_owned(), Instant::now() + UNKNOWN_TIME);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn unknown(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_for(&self, id: u32) -> Result<Registered> {
        let what = format!("schema {id}");
        let answer = self.get(&["schemas", "ids", &id.to_string()], &what).await?;
        let language = answer.language(&what)?;
        let references = self.follow(answer.references, language, &what).await?;
        Ok(Registered { id, language, text: answer.schema, references })
    }

    /// What a schema refers to, directly and by others, each behind those that it needs itself.
    async fn follow(&self, references: Vec<Reference>, language: Language, what: &str) -> Result<Vec<Referred>> {
        let mut referred = Vec::new();
        let mut done = Vec::<Reference>::new();
        // The way from the schema to the one that is looked at: on each level what is left to do.
        let mut way = vec![Level { of: None, left: references }];
        while let Some(level) = way.last_mut() {
            let Some(next) = level.left.pop() else {
                if let Some((reference, text)) = way.pop().and_then(|level| level.of) {
                    referred.push(Referred { name: reference.name.clone(), text });
                    done.push(reference);
                }
                continue;
            };
            if done.contains(&next) {
                continue;
            }
            if way.iter().any(|level| level.of.as_ref().is_some_and(|(above, _)| above.names_the_same(&next))) {
                return Err(Error::data(format!("{what} of the registry refers to itself, by {next}")));
            }
            if done.len() + way.len() > MOST_REFERENCES {
                return Err(Error::data(format!(
                    "{what} of the registry refers to more than {MOST_REFERENCES} others"
                )));
            }
            let named = format!("{next}, to which {what} refers,");
            let path = ["subjects", &next.subject, "versions", &next.version.to_string()];
            let answer = self.get(&path, &named).await?;
            if answer.language(&named)? != language {
                return Err(Error::data(format!("{named} is written in another language than the schema")));
            }
            way.push(Level { left: answer.references, of: Some((next, answer.schema)) });
        }
        Ok(referred)
    }

    async fn get(&self, path: &[&str], what: &str) -> Result<Answer> {
        let mut url = self.url.clone();
        url.path_segments_mut().map_err(|()| Error::config("registry.url: not a server"))?.pop_if_empty().extend(path);
        // A version that was deleted is still what schemas refer to.
        if matches!(path, ["subjects", _, _, version] if *version != "latest") {
            url.query_pairs_mut().append_pair("deleted", "true");
        }
        let mut request =
            self.client.get(url).header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, password.as_ref().map(Secret::expose));
        }
        answer::read(request.send().await, self.url.as_str(), what).await
    }
}

/// Reads an answer.
#[cfg(feature = "fuzz")]
pub(crate) fn parse_answer(body: &[u8]) {
    answer::parse(body);
}

/// A schema on the way, and what it refers to that was not looked at yet.
struct Level {
    of: Option<(Reference, String)>,
    left: Vec<Reference>,
}

/// The registry's address, which every request and message begins with.
///
/// # Errors
/// Config where it is none that could be asked, or where messages would tell a secret with it.
pub(crate) fn server(url: &str) -> Result<Url> {
    let allowed = "expected http://host:port or https://host:port, and a path where it has one";
    let parsed =
        Url::parse(url).map_err(|e| Error::config(format!("registry.url: not a URL; {allowed}")).with_source(e))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.cannot_be_a_base() {
        return Err(Error::config(format!("registry.url: not a server of HTTP; {allowed}")));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Error::config(
            "registry.url: holds a user or a password; expected them in `username` and `password`",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(Error::config(format!("registry.url: has a query or a fragment; {allowed}")));
    }
    Ok(parsed)
}
