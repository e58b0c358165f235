//! The binary `philotes`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match philotes_host::cli::main() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
