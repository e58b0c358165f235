//! What the host tells an instance beside its configuration, and the host's services.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::StreamName;

/// Which task of which connector an instance belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The connector's name: `[a-z0-9-]{1,63}`, unique per host.
    pub connector: String,
    /// This task, from 0.
    pub task: u32,
    /// How many tasks the connector has.
    pub tasks: u32,
    /// How much memory the instance may hold in its buffers, in bytes.
    pub max_memory: u64,
    /// Which streams are wanted. Sources push it down to their server; the host applies it as well.
    pub route: Route,
    /// What becomes of a record that cannot be written.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// The host reads the files that the configuration names (`${file:…}`) again for every open. A
    /// credential that the server refuses may have been replaced by then, so that it is
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    #[serde(default)]
    pub renewed: bool,
}

/// What becomes of a record that cannot be written: `errors.tolerance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tolerance {
    /// It is an error of kind [`Data`](crate::ErrorKind::Data), which stops the connector.
    #[default]
    None,
    /// It is kept as a [dead letter](crate::dead_letter), and the others go on.
    DeadLetter,
}

impl Tolerance {
    /// Whether a record that cannot be written becomes a dead letter.
    #[must_use]
    pub fn dead_letters(self) -> bool {
        self == Self::DeadLetter
    }
}

/// The streams that a connector wants, as glob patterns over their printed names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Patterns of streams to take; none means all.
    pub include: Vec<String>,
    /// Patterns of streams to leave out, stronger than `include`.
    pub exclude: Vec<String>,
}

impl Route {
    /// Whether the stream is wanted. `*` matches any run of characters, dots included, `?` any one character.
    #[must_use]
    pub fn wants(&self, stream: &StreamName) -> bool {
        let name = stream.to_string();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, &name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any run of characters and `?` for any one.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The gauge in which a source says how many records of a partition are not in the sink yet, with the labels `stream` and
/// `partition`, both as it announced them. The host shows it in /status as well.
pub const LAG_RECORDS: &str = "philotes_lag_records";

/// A kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    /// Adds the value, which is not negative.
    Counter = 1,
    /// Sets the value.
    Gauge = 2,
    /// Records the value as one observation.
    Histogram = 3,
}

/// The host's services: thread-safe, never blocking.
pub trait Host: Send + Sync {
    /// Records a metric. Names are `philotes_<noun>_<unit>[_total]`; the host adds the label `connector`.
    fn metric(&self, kind: MetricKind, name: &str, value: f64, labels: &[(&str, &str)]);
    /// The host wants the instance to stop: return soon.
    fn is_cancelled(&self) -> bool;
}

/// What an instance gets beside its configuration. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext {
    info: Arc<TaskInfo>,
    host: Arc<dyn Host>,
    cancellation: Arc<Cancellation>,
}

#[derive(Default)]
struct Cancellation {
    requested: AtomicBool,
    wake: Notify,
}

impl TaskContext {
    /// A context with these services; the host's side and tests make one.
    #[must_use]
    pub fn new(info: TaskInfo, host: Arc<dyn Host>) -> Self {
        Self { info: Arc::new(info), host, cancellation: Arc::default() }
    }

    /// A context for tests: services that do nothing.
    #[must_use]
    pub fn detached(info: TaskInfo) -> Self {
        struct Nothing;
        impl Host for Nothing {
            fn metric(&self, _: MetricKind, _: &str, _: f64, _: &[(&str, &str)]) {}
            fn is_cancelled(&self) -> bool {
                false
            }
        }
        Self::new(info, Arc::new(Nothing))
    }

    /// Which task of which connector.
    #[must_use]
    pub fn info(&self) -> &TaskInfo {
        &self.info
    }

    /// Adds to a counter.
    pub fn count(&self, name: &str, value: u64, labels: &[(&str, &str)]) {
        #[expect(clippy::cast_precision_loss, reason = "a metric's value is a double in Prometheus as well")]
        self.host.metric(MetricKind::Counter, name, value as f64, labels);
    }

    /// Sets a gauge.
    pub fn gauge(&self, name: &str, value: f64, labels: &[(&str, &str)]) {
        self.host.metric(MetricKind::Gauge, name, value, labels);
    }

    /// Records one observation of a histogram.
    pub fn observe(&self, name: &str, value: f64, labels: &[(&str, &str)]) {
        self.host.metric(MetricKind::Histogram, name, value, labels);
    }

    /// The host wants the instance to stop: return soon.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.requested.load(Ordering::Acquire) || self.host.is_cancelled()
    }

    /// Waits until the host wants the instance to stop. A running poll or flush is never dropped, so one that waits for
    /// long selects on this and returns.
    pub async fn cancelled(&self) {
        loop {
            // Registered before the flag is read, so that a cancel in between is not missed.
            let woken = self.cancellation.wake.notified();
            if self.is_cancelled() {
                return;
            }
            woken.await;
        }
    }

    /// Asks the instance to stop, and wakes whoever waits in [`TaskContext::cancelled`]; the host's side and tests do.
    pub fn cancel(&self) {
        self.cancellation.requested.store(true, Ordering::Release);
        self.cancellation.wake.notify_waiters();
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("info", &self.info).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("public.*", "public.orders", true),
            ("public.*", "private.orders", false),
            ("*", "", true),
            ("*.ord?rs", "public.orders", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn cancel_wakes_who_waits_and_is_seen_by_who_comes_later() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let context = TaskContext::detached(TaskInfo::default());
        assert!(!context.is_cancelled());
        let waiting = runtime.spawn({
            let context = context.clone();
            async move { context.cancelled().await }
        });
        context.cancel();
        runtime.block_on(waiting).unwrap();
        runtime.block_on(context.cancelled());
        assert!(context.is_cancelled());
    }

    #[test]
    fn exclude_is_stronger_than_include() {
        let route = Route { include: vec!["public.*".into()], exclude: vec!["*.secret".into()] };
        let wants = |table: &str| route.wants(&StreamName::new(["public", table]).unwrap());
        assert!(wants("orders"));
        assert!(!wants("secret"));
    }
}
