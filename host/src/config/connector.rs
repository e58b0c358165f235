//! A connector as its file describes it: the host's own keys, and the two sections that plugins understand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{Route, StreamName, Tolerance};

use super::document::Node;
use super::fault::{Faults, below, nearest, unknown_key};
use super::{Plugins, Renewal, schema};
use crate::plugin::{Connector, Kind};
use philotes_sdk::quantity::{DURATION, SIZE, duration, size};

/// One connector. No `Debug`: the sections may hold secrets.
#[derive(Clone)]
pub struct ConnectorConfig {
    /// Unique per host.
    pub name: String,
    /// The file it came from.
    pub file: PathBuf,
    /// Where rows come from.
    pub source: Endpoint,
    /// Where they go.
    pub sink: Endpoint,
    /// Which streams are taken.
    pub route: Route,
    /// Streams that go by another name at the sink.
    pub rename: BTreeMap<StreamName, StreamName>,
    /// When the sink flushes.
    pub commit: CommitPolicy,
    /// What becomes of a record that cannot be written.
    pub tolerance: Tolerance,
    /// How many tasks at most.
    pub tasks: u32,
    /// How calls are retried.
    pub retry: RetryPolicy,
    /// How long a call into source or sink may take before it is reported as stalled.
    pub stalled_after: Duration,
    /// What happens once retries are exhausted.
    pub restart: RestartPolicy,
    /// The memory of all its tasks together, in bytes; its share of the host's where the file does not say.
    pub max_memory: Option<u64>,
}

/// A plugin's connector and its configuration.
#[derive(Clone)]
pub struct Endpoint {
    /// The loaded connector.
    pub connector: Arc<dyn Connector>,
    /// Its section without `plugin`, as JSON, as it was when the file was loaded. May hold secrets.
    pub config: String,
    /// Where the section names files, whose text is read again for every open.
    pub(crate) renewal: Option<Arc<Renewal>>,
}

/// When the sink flushes: whatever comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPolicy {
    /// This long after the first row that is not committed.
    pub interval: Duration,
    /// This many rows.
    pub max_rows: u64,
    /// This many bytes of Arrow.
    pub max_bytes: u64,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), max_rows: 1_000_000, max_bytes: 128 << 20 }
    }
}

/// Exponential back-off with jitter, factor 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// Retries without success for this long end in FAILED.
    pub elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(30), elapsed: Duration::from_secs(300) }
    }
}

/// What becomes of a task that FAILED because its retries were exhausted. Wrong configuration, data that cannot be
/// written and bugs are never restarted: they would fail again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Whether it is started again at all.
    pub on_failure: bool,
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How many restarts in a row, without a commit in between.
    pub attempts: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { on_failure: true, initial: Duration::from_secs(60), max: Duration::from_secs(600), attempts: 10 }
    }
}

/// A poll that waits for rows takes a quarter of a second; a commit, seconds.
const STALLED_AFTER: Duration = Duration::from_secs(30);

const NAME: &str = "[a-z0-9-]{1,63}";

/// Reads one file's tree. `None` where a fault leaves nothing to run.
pub(super) fn read(file: &Path, root: Node, plugins: &dyn Plugins, faults: &mut Faults) -> Option<ConnectorConfig> {
    let before = faults.len();
    let mut top = Section::new("", root, faults)?;
    let name = top.name(faults);
    let source = endpoint(Kind::Source, top.take("source"), plugins, faults);
    let sink = endpoint(Kind::Sink, top.take("sink"), plugins, faults);
    let (route, rename) = routing(top.section("route", faults), faults);
    let commit = commit(top.section("commit", faults), faults);
    let retry = retry(top.section("retry", faults), faults);
    let stalled_after = top.duration("stalled_after", STALLED_AFTER, faults);
    let restart = restart(top.section("restart", faults), faults);
    let tolerance = tolerance(top.section("errors", faults), sink.as_ref(), faults);
    let tasks = top.count("tasks", 1, 1, faults);
    let max_memory = top.size("max_memory", 0, 16 << 20, faults);
    top.finish(faults);
    if faults.len() > before {
        return None;
    }
    Some(ConnectorConfig {
        name: name?,
        file: file.to_owned(),
        source: source?,
        sink: sink?,
        route,
        rename,
        commit,
        tolerance,
        tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
        retry,
        stalled_after,
        restart,
        max_memory: (max_memory > 0).then_some(max_memory),
    })
}

fn endpoint(kind: Kind, node: Option<Node>, plugins: &dyn Plugins, faults: &mut Faults) -> Option<Endpoint> {
    let path = kind.section();
    let all = plugins.all();
    let names: Vec<&str> = all.iter().filter(|each| each.kind() == kind).map(|each| each.name()).collect();
    let available = || {
        let list = if names.is_empty() { "none was found".to_owned() } else { names.join(", ") };
        format!("{list}{}", plugins.searched())
    };
    let Some(node) = node else {
        faults.add(path, "missing", format!("a map with plugin: {}", available()));
        return None;
    };
    let Node::Map(mut entries) = node else {
        faults.add(path, format!("found {}", node.describe(true)), format!("a map with plugin: {}", available()));
        return None;
    };
    let plugin_path = below(path, "plugin");
    let Some(position) = entries.iter().position(|(key, _)| key == "plugin") else {
        faults.add(plugin_path, "missing", available());
        return None;
    };
    let (_, plugin) = entries.remove(position);
    let Node::Text { text: name, .. } = plugin else {
        faults.add(plugin_path, format!("found {}", plugin.describe(false)), available());
        return None;
    };
    let Some(connector) = plugins.connector(kind, &name) else {
        let near = nearest(&names, &name).map_or(String::new(), |near| format!(", did you mean {near}?"));
        faults.add(plugin_path, format!("no {path} plugin {name:?} was found{near}"), available());
        return None;
    };
    let before = faults.len();
    let json = schema::check(&Node::Map(entries), connector.config_spec(), path, faults);
    if faults.len() > before {
        return None;
    }
    let config = json.to_string();
    match connector.validate(&config) {
        Ok(messages) => {
            for message in &messages {
                faults.of_plugin(path, message);
            }
            messages.is_empty().then_some(Endpoint { connector, config, renewal: None })
        }
        Err(error) => {
            faults.add(path, error.to_string(), "");
            None
        }
    }
}

/// The JSON of a section for the plugin that it had when the file was loaded.
pub(super) fn section_json(root: Node, kind: Kind, connector: &dyn Connector, faults: &mut Faults) -> Option<String> {
    let path = kind.section();
    let Node::Map(sections) = root else { return None };
    let (_, section) = sections.into_iter().find(|(key, _)| key == path)?;
    let Node::Map(mut entries) = section else { return None };
    entries.retain(|(key, _)| key != "plugin");
    let config = schema::check(&Node::Map(entries), connector.config_spec(), path, faults).to_string();
    match connector.validate(&config) {
        Ok(messages) => messages.iter().for_each(|message| faults.of_plugin(path, message)),
        Err(error) => faults.add(path, error.to_string(), ""),
    }
    Some(config)
}

fn routing(mut section: Section, faults: &mut Faults) -> (Route, BTreeMap<StreamName, StreamName>) {
    let route = Route { include: section.texts("include", faults), exclude: section.texts("exclude", faults) };
    let path = section.below("rename");
    let mut rename = BTreeMap::new();
    match section.take("rename") {
        None => {}
        Some(Node::Map(entries)) => {
            for (from, to) in entries {
                let path = below(&path, &from);
                const ALLOWED: &str = "stream names such as public.orders, parts in double quotes where they need it";
                let Node::Text { text: to, .. } = &to else {
                    faults.add(path, format!("found {}", to.describe(false)), ALLOWED);
                    continue;
                };
                match (parse_stream(&from), parse_stream(to)) {
                    (Some(from), Some(to)) => {
                        if let Some((other, _)) = rename.iter().find(|(_, taken)| **taken == to) {
                            faults.add(
                                path,
                                format!("{from} and {other} would both become {to}"),
                                "one stream per name",
                            );
                        } else {
                            rename.insert(from, to);
                        }
                    }
                    (None, _) => faults.add(path, "found no stream name as the key", ALLOWED),
                    (_, None) => faults.add(path, format!("found {to:?}"), ALLOWED),
                }
            }
        }
        Some(other) => faults.add(path, format!("found {}", other.describe(false)), "a map of stream names"),
    }
    section.finish(faults);
    (route, rename)
}

/// A stream's name as it is printed: parts between dots, quoted where they need it.
pub(crate) fn parse_stream(text: &str) -> Option<StreamName> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let part = if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.next_if(|(_, next)| *next == '"').is_some() => part.push('"'),
                    (index, '"') => break index,
                    (_, other) => part.push(other),
                }
            };
            rest = &quoted[end + 1..];
            part
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let part = &rest[..end];
            if part.is_empty() || part.chars().any(|c| c == '"' || c.is_whitespace() || c.is_control()) {
                return None;
            }
            rest = &rest[end..];
            part.to_owned()
        };
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() => return StreamName::new(parts).ok(),
            None => return None,
        }
    }
}

fn commit(mut section: Section, faults: &mut Faults) -> CommitPolicy {
    let default = CommitPolicy::default();
    let policy = CommitPolicy {
        interval: section.duration("interval", default.interval, faults),
        max_rows: section.count("max_rows", default.max_rows, 1, faults),
        max_bytes: section.size("max_bytes", default.max_bytes, 1, faults),
    };
    section.finish(faults);
    policy
}

fn tolerance(mut section: Section, sink: Option<&Endpoint>, faults: &mut Faults) -> Tolerance {
    let word = section.word("tolerance", &["none", "dead-letter"], faults);
    let path = section.below("tolerance");
    section.finish(faults);
    if word == "none" {
        return Tolerance::None;
    }
    if let Some(sink) = sink.filter(|sink| !sink.connector.takes_dead_letters()) {
        faults.add(
            path,
            format!("found {word:?}, and the sink {} keeps no dead letters", sink.connector.name()),
            "none",
        );
    }
    Tolerance::DeadLetter
}

fn retry(mut section: Section, faults: &mut Faults) -> RetryPolicy {
    let default = RetryPolicy::default();
    let policy = RetryPolicy {
        initial: section.duration("initial", default.initial, faults),
        max: section.duration("max", default.max, faults),
        elapsed: section.duration("elapsed", default.elapsed, faults),
    };
    section.finish(faults);
    policy
}

fn restart(mut section: Section, faults: &mut Faults) -> RestartPolicy {
    let default = RestartPolicy::default();
    let policy = RestartPolicy {
        on_failure: section.word("policy", &["on-failure", "never"], faults) == "on-failure",
        initial: section.duration("initial", default.initial, faults),
        max: section.duration("max", default.max, faults),
        attempts: u32::try_from(section.count("attempts", u64::from(default.attempts), 1, faults)).unwrap_or(u32::MAX),
    };
    section.finish(faults);
    policy
}

/// A map of the host's own keys: each getter takes one, `finish` refuses what nobody took.
struct Section {
    path: String,
    entries: Vec<(String, Node)>,
    known: Vec<&'static str>,
}

impl Section {
    fn new(path: &str, node: Node, faults: &mut Faults) -> Option<Self> {
        match node {
            Node::Map(entries) => Some(Self { path: path.to_owned(), entries, known: Vec::new() }),
            other => {
                faults.add(path, format!("found {}", other.describe(false)), "a map");
                None
            }
        }
    }

    fn below(&self, key: &str) -> String {
        below(&self.path, key)
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let position = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(position).1)
    }

    /// A section below this one; without keys where the file has none.
    fn section(&mut self, key: &'static str, faults: &mut Faults) -> Self {
        let path = self.below(key);
        let node = self.take(key).unwrap_or_else(|| Node::Map(Vec::new()));
        Self::new(&path, node, faults).unwrap_or(Self { path, entries: Vec::new(), known: Vec::new() })
    }

    fn name(&mut self, faults: &mut Faults) -> Option<String> {
        match self.take("name") {
            None => {
                faults.add("name", "missing", NAME);
                None
            }
            Some(Node::Text { text, .. }) if is_name(&text) => Some(text),
            Some(other) => {
                faults.add("name", format!("found {}", other.describe(false)), NAME);
                None
            }
        }
    }

    fn texts(&mut self, key: &'static str, faults: &mut Faults) -> Vec<String> {
        let path = self.below(key);
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Node::List(items)) => items,
            Some(other) => {
                faults.add(path, format!("found {}", other.describe(false)), "a list of patterns such as public.*");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Node::Text { text, .. } if !text.is_empty() => texts.push(text),
                other => faults.add(
                    format!("{path}[{index}]"),
                    format!("found {}", other.describe(false)),
                    "a pattern such as public.*",
                ),
            }
        }
        texts
    }

    /// One of these words; the first where the file has none.
    fn word(&mut self, key: &'static str, allowed: &[&'static str], faults: &mut Faults) -> &'static str {
        let path = self.below(key);
        let node = self.take(key);
        let found = match &node {
            None => return allowed[0],
            Some(Node::Text { text, .. }) => allowed.iter().find(|word| *word == text),
            Some(_) => None,
        };
        if let (None, Some(node)) = (found, &node) {
            faults.add(path, format!("found {}", node.describe(false)), allowed.join(", "));
        }
        found.unwrap_or(&allowed[0])
    }

    fn duration(&mut self, key: &'static str, default: Duration, faults: &mut Faults) -> Duration {
        let path = self.below(key);
        match self.take(key) {
            None => default,
            Some(Node::Text { text, .. }) if duration(&text).is_some_and(|d| !d.is_zero()) => {
                duration(&text).unwrap_or(default)
            }
            Some(other) => {
                faults.add(path, format!("found {}", other.describe(false)), DURATION);
                default
            }
        }
    }

    fn size(&mut self, key: &'static str, default: u64, minimum: u64, faults: &mut Faults) -> u64 {
        let path = self.below(key);
        let node = match self.take(key) {
            None => return default,
            Some(node) => node,
        };
        let found = match &node {
            Node::Number(number) => number.as_u64(),
            Node::Text { text, .. } => size(text),
            _ => None,
        };
        found.filter(|bytes| *bytes >= minimum).unwrap_or_else(|| {
            let least = philotes_sdk::quantity::print_size(minimum);
            faults.add(path, format!("found {}", node.describe(false)), format!("{SIZE}, at least {least}"));
            default
        })
    }

    fn count(&mut self, key: &'static str, default: u64, minimum: u64, faults: &mut Faults) -> u64 {
        let path = self.below(key);
        let node = match self.take(key) {
            None => return default,
            Some(node) => node,
        };
        let found = match &node {
            Node::Number(number) => number.as_u64(),
            Node::Text { text, expanded: true } => text.trim().parse().ok(),
            _ => None,
        };
        found.filter(|count| *count >= minimum).unwrap_or_else(|| {
            faults.add(path, format!("found {}", node.describe(false)), format!("a whole number from {minimum} on"));
            default
        })
    }

    fn finish(self, faults: &mut Faults) {
        for (key, _) in &self.entries {
            faults.add(self.below(key), unknown_key(&self.known, key), self.known.join(", "));
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
