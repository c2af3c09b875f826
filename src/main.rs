//! The `ringfence` command: everything is in [`ringfence::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::cli::main()
}
