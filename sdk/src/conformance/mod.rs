//! The delivery contract as two suites that run: one for sources, one for sinks.
//!
//! A suite drives an implementation of [`Source`](crate::Source) or [`Sink`](crate::Sink) as the host would, restarts and second
//! instances included, and compares what it sees with the contract in the trait's documentation. What it cannot know
//! (how to fill the source's system, how to read what landed in the sink's) a small fixture tells it: [`SourceFixture`],
//! [`SinkFixture`]. [`MemorySource`] and [`MemorySink`] are the smallest implementations that pass, and what a host can be
//! tested with.
//!
//! It checks what can be seen from outside while everything is healthy or out of reach. It cannot crash a server in the
//! middle of a commit or delay a reply: a plugin's own tests do that.

use std::fmt;

use crate::{Error, ErrorKind};

mod memory;
mod sink;
mod source;

pub use memory::{MemoryConfig, MemorySink, MemorySource, MemorySourceConfig, MemoryStore};
pub use sink::{Landed, LandedRow, SinkFixture, check_sink, clause as sink_clause};
pub use source::{KEYS, SourceFixture, check_source, clause as source_clause};

/// A clause of the contract that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The clause, one of [`source_clause`] or [`sink_clause`], or [`FIXTURE`].
    pub clause: &'static str,
    /// What the suite was doing.
    pub scenario: &'static str,
    /// What it found instead.
    pub found: String,
}

/// The clause of a failure of the fixture itself.
pub const FIXTURE: &str = "the fixture works";

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated: {}\n  while: {}\n  found: {}", self.clause, self.scenario, self.found)
    }
}

/// Everything that a suite found, at most one violation per scenario; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// What a suite that found nothing wrong has to say: the clauses that the fixture could not provoke.
pub type Unchecked = Vec<&'static str>;

/// How a scenario ends; the suite adds its name to the violation.
type Check<T = ()> = Result<T, Violation>;

fn violation(clause: &'static str, found: impl Into<String>) -> Violation {
    Violation { clause, scenario: "", found: found.into() }
}

/// Fails with the clause where the condition does not hold.
fn ensure(condition: bool, clause: &'static str, found: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(violation(clause, found())) }
}

/// Turns an error of a call into a violation of a clause.
trait OrViolation<T> {
    fn or_violation(self, clause: &'static str, call: &str) -> Check<T>;
    fn fixture(self, call: &str) -> Check<T>;
}

impl<T> OrViolation<T> for crate::Result<T> {
    fn or_violation(self, clause: &'static str, call: &str) -> Check<T> {
        self.map_err(|error| violation(clause, format!("{call}: {}", describe(&error))))
    }

    fn fixture(self, call: &str) -> Check<T> {
        self.or_violation(FIXTURE, call)
    }
}

fn describe(error: &Error) -> String {
    format!("{} error: {error}", error.kind())
}

/// Whether the host's answer to an error is to stop: the way out is an operator's.
fn stops(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Config | ErrorKind::Data | ErrorKind::Internal)
}

/// The outcomes of a suite's scenarios.
#[derive(Default)]
struct Outcomes {
    violations: Vec<Violation>,
    unchecked: Unchecked,
}

impl Outcomes {
    fn add(&mut self, scenario: &'static str, outcome: Check<Unchecked>) {
        match outcome {
            Ok(unchecked) => self.unchecked.extend(unchecked),
            Err(violation) => self.violations.push(Violation { scenario, ..violation }),
        }
    }

    fn end(self) -> Result<Unchecked, Violations> {
        if self.violations.is_empty() { Ok(self.unchecked) } else { Err(Violations(self.violations)) }
    }
}
