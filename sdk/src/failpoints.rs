//! Named points at which a test lets a process die, fail, panic or stall.
//!
//! They exist only with the feature `failpoints`, which tests build with and no release build can have; without it
//! [`failpoint!`](crate::failpoint) is nothing. The environment variable `FAILPOINTS` says what happens where, in the syntax of
//! the crate `fail`: `commit.sent=1*off->1*return(abort)` ends the process at the second pass. Each library has statics of its
//! own, so each reads the variable when it passes its first point.

use std::sync::Once;
use std::time::{Duration, Instant};

#[cfg(not(debug_assertions))]
compile_error!("failpoints are for tests: a release build must not have them");

/// Longer than a pass without a stall takes.
const MOMENT: Duration = Duration::from_millis(100);

/// Passes a point; whether an error is to be returned there. `return(abort)` does not come back, `return` asks for the error;
/// `panic` and `sleep(MILLISECONDS)` are the crate's own.
#[must_use]
pub fn fails(name: &str) -> bool {
    static SET_UP: Once = Once::new();
    // Never torn down: the points last as long as the process.
    SET_UP.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    let began = Instant::now();
    let asked = act(name);
    // Printed and not logged, so that nothing of it waits in a buffer when the process ends.
    if asked {
        eprintln!("failpoint {name}: an error");
    } else if began.elapsed() > MOMENT {
        eprintln!("failpoint {name}: stalled");
    }
    asked
}

fn act(name: &str) -> bool {
    fail::fail_point!(name, |argument| match argument.as_deref() {
        Some("abort") => {
            eprintln!("failpoint {name}: abort");
            std::process::abort()
        }
        _ => true,
    });
    false
}
