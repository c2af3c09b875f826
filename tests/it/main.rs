//! The one integration binary (STYLE, test layout): librdkafka is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test crate: clippy's own exception covers test functions only, not their helpers"
)]

mod dead_letters;
mod exactly_once;
mod geometry_data;

mod allocations;
mod bad_input;
mod broker;
mod broker_faults;
mod check;
mod fuzz;
mod gate_faults;
mod index_oracle;
mod kafka_faults;
mod main_job;
mod markers;
mod match_bounds;
mod match_data;
mod membership;
mod metrics;
mod mock_cluster;
mod pipeline;
mod pipeline_faults;
mod planted;
mod real_data;
mod rebalance_faults;
mod refusing_brokers;
mod replay;
mod shell_faults;
mod silent_and_slow;
mod simulation;
mod soak;
mod support;
mod tidy;
mod tiles;
mod tools;
mod torture;
mod transaction_simulation;
mod witness;
mod zone_files;
mod zone_properties;
