//! What is fuzzed, and what must hold of it: each target is a `run(&[u8])` that panics where it does not.
//!
//! Two drivers: `tests/it/fuzz.rs` runs the corpus and mutations of it in every test run, with the stable toolchain and
//! nothing to install; the binaries of this package give the same functions to libFuzzer, which follows coverage
//! (`scripts/fuzz`). What they find goes into `corpus/`, where both read it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each binary runs one of the targets, and tests include all of them; a panic is how a target speaks"
)]

mod members;

pub mod configuration;
pub mod splice;
pub mod telemetry;
pub mod zone_change;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the names of their directories below `corpus/`.
pub const ALL: [(&str, Target); 4] = [
    ("telemetry", telemetry::run),
    ("splice", splice::run),
    ("zone_change", zone_change::run),
    ("configuration", configuration::run),
];
