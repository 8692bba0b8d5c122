//! The program `okx-store`: everything is in the library.

#![forbid(unsafe_code)]

use std::panic::catch_unwind;
use std::process::ExitCode;

use okx_local_store::cli::{self, outcome::Exit};

fn main() -> ExitCode {
    // A panic has told its story on stderr already; what is left to say is that it is a bug.
    catch_unwind(|| cli::run(std::env::args_os().skip(1))).unwrap_or(Exit::Bug).into()
}
