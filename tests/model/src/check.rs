//! Runs a model through the checker and says what came of it.

use std::fmt::{Debug, Display, Formatter};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Threads of an exhaustive run.
const THREADS: usize = 2;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    name: String,
    /// States that differ.
    pub states: usize,
    /// The longest way that was followed, in steps.
    pub depth: usize,
    took: Duration,
    /// Properties that do not hold, each with the steps that lead there.
    pub broken: Vec<Broken>,
    /// What shall be possible and was not met.
    pub unmet: Vec<&'static str>,
}

/// A property that does not hold.
#[derive(Debug)]
pub struct Broken {
    pub property: &'static str,
    pub steps: Vec<String>,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { name, states, depth, took, broken, unmet } = self;
        writeln!(f, "{name}: {states} states, {depth} steps deep, {:.1} s", took.as_secs_f64())?;
        for Broken { property, steps } in broken {
            writeln!(f, "  broken: {property}, after {} steps: {}", steps.len(), steps.join(", "))?;
        }
        for property in unmet {
            writeln!(f, "  not met: {property}")?;
        }
        Ok(())
    }
}

/// Visits every state within the model's bounds, and prints how many they are.
pub fn exhaust<M>(name: &str, model: M) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    // Depth first: that needs a twelfth of the memory.
    let report = Report::new(name, began, &model.checker().threads(THREADS).spawn_dfs().join());
    print!("{report}");
    report
}

/// Looks for a way to break this property, and prints the shortest.
///
/// # Panics
/// Where there is none.
pub fn refute<M>(name: &str, model: &M, property: &'static str)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let look = |fewer_than: Option<usize>| {
        let mut checker = model.clone().checker().finish_when(HasDiscoveries::AnyOf([property].into()));
        if let Some(steps) = fewer_than {
            // The checker counts the first state too, and leaves out the depth it is told.
            checker = checker.target_max_depth(steps + 1);
        }
        Report::new(name, began, &checker.spawn_bfs().join())
    };
    let mut report = look(None);
    // The checker looks at whole blocks of states and keeps what it found last.
    while let Some(steps) = report.steps_to(property) {
        let shorter = look(Some(steps));
        if shorter.steps_to(property).is_none() {
            break;
        }
        report = Report { states: report.states, depth: report.depth, ..shorter };
    }
    report.took = began.elapsed();
    report.broken.retain(|broken| broken.property == property);
    report.unmet.clear();
    print!("{report}");
    assert!(!report.broken.is_empty(), "{property}: not broken");
}

impl Report {
    fn new<M>(name: &str, began: Instant, checker: &impl Checker<M>) -> Self
    where
        M: Model,
        M::State: Clone + Debug + Hash + PartialEq,
        M::Action: Clone + Debug + PartialEq,
    {
        let found = checker.discoveries();
        let mut broken = Vec::new();
        let mut unmet = Vec::new();
        for property in checker.model().properties() {
            let path = found.get(property.name);
            match (property.expectation, path) {
                (Expectation::Sometimes, None) => unmet.push(property.name),
                (Expectation::Always | Expectation::Eventually, Some(path)) => {
                    let steps = path.clone().into_actions().iter().map(|action| format!("{action:?}")).collect();
                    broken.push(Broken { property: property.name, steps });
                }
                _ => {}
            }
        }
        Self {
            name: name.to_owned(),
            states: checker.unique_state_count(),
            depth: checker.max_depth().saturating_sub(1),
            took: began.elapsed(),
            broken,
            unmet,
        }
    }

    /// # Panics
    /// Where a property does not hold, or something that shall be possible was not met.
    pub fn holds(&self) {
        assert!(self.broken.is_empty() && self.unmet.is_empty(), "{self}");
    }

    fn steps_to(&self, property: &str) -> Option<usize> {
        self.broken.iter().find(|broken| broken.property == property).map(|broken| broken.steps.len())
    }
}

/// Whether larger bounds were asked for.
pub fn deep() -> bool {
    std::env::var_os("PHILOTES_MODEL_DEEP").is_some_and(|value| !value.is_empty())
}
