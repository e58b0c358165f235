//! The binary `philotes`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match philotes_host::cli::main() {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Not its Display alone: it may name what others have named.
            eprintln!("{}", philotes_host::shown(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
