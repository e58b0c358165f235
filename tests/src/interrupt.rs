//! Ctrl-C in a program that has started servers: end the children, let the work fail, and let it clean up after itself.

use std::process::ExitCode;

use anyhow::Result;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::services::{self, children};

/// Does the work on a thread of its own. On SIGINT or SIGTERM every child is asked to end, the work then ends with an error,
/// and dropping what it holds removes what it has made.
pub fn run(name: &str, work: impl FnOnce() -> Result<ExitCode> + Send + 'static) -> ExitCode {
    let (done, finished) = oneshot::channel();
    let worker = std::thread::spawn(move || {
        let result = work();
        let _ = done.send(());
        result
    });
    let interrupted = wait(finished);
    let code = worker.join();
    match code {
        _ if interrupted => ExitCode::from(130),
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Waits for the end of the work; true when a signal came first.
fn wait(finished: oneshot::Receiver<()>) -> bool {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return false };
    runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return false;
        };
        tokio::pin!(finished);
        let mut interrupted = false;
        loop {
            tokio::select! {
                _ = &mut finished => return interrupted,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            interrupted = true;
            for child in children(std::process::id()) {
                services::signal(child, "TERM");
                services::signal(child, "INT");
            }
        }
    })
}
