//! The `ringfence` command: everything is in [`ringfence::cli`].

use std::process::ExitCode;

/// Not the library's to choose: tests count allocations with one of their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringfence::cli::main()
}
