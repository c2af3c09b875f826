//! The figures of DESIGN 12 that need no Kafka, each beside its baseline in the same process, as rows of the table that
//! `scripts/bench` prints. `benches/README.md` describes the workloads. `workload FOLDER [NAME=N…]` writes one as files instead.
//!
//! One after the other: the order matters to none but the first, which measures the memory of the process.
//! `RINGFENCE_BENCH_ONLY=changing,latency` runs only these parts.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and paces its load"
)]

#[path = "../support/allocator.rs"]
mod allocator;
#[path = "../support/mod.rs"]
mod support;

mod changing;
mod codec;
mod correct;
mod curves;
mod data;
mod lookup;
mod million;
mod packing;
mod plot;
mod promotion;
mod real;
mod workload;

use support::measure;

fn main() -> Result<(), String> {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|one| one != "--bench")
        .collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == "workload"
    {
        return workload::write(rest);
    }
    if measure::is_wanted("million") {
        million();
    }
    let parts: [(&str, fn()); 9] = [
        ("lookup", lookup::baselines),
        ("real", real::report),
        ("rebuild", promotion::rebuild),
        ("area", promotion::area),
        ("changing", changing::changes_per_second),
        ("latency", changing::batch_latency),
        ("codec", codec::round_trip),
        ("packing", packing::report),
        ("correct", correct::memberships),
    ];
    for (part, report) in parts {
        if measure::is_wanted(part) {
            report();
        }
    }
    Ok(())
}

fn million() {
    let small = support::index(&support::tessellation(32, million::PER_EDGE));
    let large = million::bootstrap();
    million::lookup(&small, &large);
    million::promotion(&small, &large);
    if let Some(folder) = plot::folder() {
        curves::zones(&folder, &small, &large);
        curves::vertices(&folder);
    }
}
