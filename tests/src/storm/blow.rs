//! What happens in the storm, and when: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::services::proxy::{Answer, Fault, Rule};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) struct Blow {
    /// How long nothing else happens before.
    pub(super) pause: Duration,
    /// Which connector it is meant for; the servers are everybody's.
    pub(super) lake: usize,
    /// Which of its tables.
    pub(super) table: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    KillHost,
    StopHost,
    SecondHost { together: Duration, kill_first: bool },
    PauseHost { paused: Duration, kill_first: bool },
    KillPostgres { away: Duration },
    KillStorage { away: Duration },
    KillCatalog { away: Duration },
    SpoilCatalog(Rule),
    SpoilStorage(Rule),
    Append,
    Compact,
    Expire,
    RemoveOrphans,
    TakeAway,
    BeginAnew,
    MakeTable { more: u32 },
}

type Draw = fn(&mut StdRng) -> What;

/// How often each happens, in a hundred.
const WEIGHTS: [(u32, Draw); 16] = [
    (18, |_| What::KillHost),
    (4, |_| What::StopHost),
    (6, |random| What::SecondHost { together: millis(random, 500, 4000), kill_first: random.random() }),
    (6, |random| What::PauseHost { paused: millis(random, 1500, 6000), kill_first: random.random() }),
    (6, |random| What::KillPostgres { away: millis(random, 0, 3000) }),
    (6, |random| What::KillStorage { away: millis(random, 0, 3000) }),
    (6, |random| What::KillCatalog { away: millis(random, 0, 2000) }),
    (18, |random| What::SpoilCatalog(rule(random, "POST", "/tables/"))),
    (6, |random| What::SpoilStorage(rule(random, "PUT", "/"))),
    (5, |_| What::Append),
    (6, |_| What::Compact),
    (5, |_| What::Expire),
    (3, |_| What::RemoveOrphans),
    (1, |_| What::TakeAway),
    (2, |_| What::BeginAnew),
    (2, |random| What::MakeTable { more: random.random_range(0..4) }),
];

impl What {
    /// Whether it happens to all connectors.
    pub(super) fn is_of_server(&self) -> bool {
        matches!(
            self,
            Self::KillPostgres { .. }
                | Self::KillStorage { .. }
                | Self::KillCatalog { .. }
                | Self::SpoilCatalog(_)
                | Self::SpoilStorage(_)
        )
    }
}

impl What {
    /// The same for tables that are kept equal, in which nobody else may write: their files can be written anew all the same.
    pub(super) fn of_rows(self) -> Self {
        match self {
            Self::Append => Self::Compact,
            other => other,
        }
    }
}

impl Blow {
    /// The next one.
    pub(super) fn next(random: &mut StdRng, lakes: usize, tables: usize) -> Self {
        let total: u32 = WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = random.random_range(0..total);
        let (pause, lake, table) =
            (millis(random, 300, 3000), random.random_range(0..lakes), random.random_range(0..tables));
        let mut what = What::KillHost;
        for (weight, draw) in WEIGHTS {
            if drawn < weight {
                what = draw(random);
                break;
            }
            drawn -= weight;
        }
        Self { pause, lake, table, what }
    }
}

fn millis(random: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..=to))
}

fn rule(random: &mut StdRng, method: &str, path: &str) -> Rule {
    let fault = match random.random_range(0..8) {
        0 | 1 => Fault::Swallow,
        2 => Fault::Cut(random.random_range(1..400)),
        3 => Fault::Double(Answer::First),
        4 => Fault::Double(Answer::Second),
        5 => Fault::Reset,
        6 => Fault::Refuse,
        _ => Fault::Delay(millis(random, 500, 4000)),
    };
    Rule::new(fault).on(method, path).times(random.random_range(1..4))
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |first: &bool| if *first { "first" } else { "second" };
        match self {
            Self::KillHost => write!(f, "the host is killed"),
            Self::StopHost => write!(f, "the host is stopped and started"),
            Self::SecondHost { together, kill_first } => {
                write!(f, "a second host for {together:?}, then the {} is killed", or(kill_first))
            }
            Self::PauseHost { paused, kill_first } => {
                write!(f, "the host is paused for {paused:?} beside a second, then the {} is killed", or(kill_first))
            }
            Self::KillPostgres { away } => write!(f, "PostgreSQL is killed, and away for {away:?}"),
            Self::KillStorage { away } => write!(f, "the storage is killed, and away for {away:?}"),
            Self::KillCatalog { away } => write!(f, "the catalog is killed, and away for {away:?}"),
            Self::SpoilCatalog(rule) => write!(f, "on the way to the catalog: {rule}"),
            Self::SpoilStorage(rule) => write!(f, "on the way to the storage: {rule}"),
            Self::Append => write!(f, "somebody else appends"),
            Self::Compact => write!(f, "somebody else compacts"),
            Self::Expire => write!(f, "somebody else expires all snapshots but one"),
            Self::RemoveOrphans => write!(f, "orphans are removed under the host"),
            Self::TakeAway => write!(f, "the table is taken away and given back"),
            Self::BeginAnew => write!(f, "the table is put aside, and a new one begun"),
            Self::MakeTable { more } => {
                write!(f, "the source's table is dropped and made anew with {more} more columns")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::mem::discriminant;

    use rand::SeedableRng;

    use super::*;

    fn plan(seed: u64, blows: usize) -> Vec<Blow> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..blows).map(|_| Blow::next(&mut random, 2, 3)).collect()
    }

    #[test]
    fn a_seed_tells_all_that_happens() {
        assert_eq!(format!("{:?}", plan(1, 500)), format!("{:?}", plan(1, 500)));
        assert_ne!(format!("{:?}", plan(1, 500)), format!("{:?}", plan(2, 500)));
        let kinds: BTreeSet<String> =
            plan(1, 500).iter().map(|blow| format!("{:?}", discriminant(&blow.what))).collect();
        assert_eq!(kinds.len(), WEIGHTS.len());
    }
}
