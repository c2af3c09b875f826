//! The zones side, pure: which changes are accepted, up to when the log is complete, what becomes visible, and when
//! (DESIGN 4, 6, 8). A shard is its unit; broadcast is one shard.
//!
//! One [`Gate`]: [`GateInput`]s go in with the time as an argument, [`GateEffect`]s come out. No I/O, clock or thread.
//! It owns I1 (low watermark and `as_of` never go back), I3 (epoch +1 per new index), I7 (staging is bounded), I14
//! (nothing is published before the bootstrap) and I16 (every late change is counted); with the index, I2 and I4.

pub mod admission;
pub mod clock_guard;
mod config;
mod engine;
mod floor;
mod margin;
pub mod marker;
mod messages;
mod promotion;
mod rejected;
pub mod snapshot;
mod staging;
mod status;
#[cfg(test)]
mod tests;
mod watermark;

pub use admission::ZoneRecord;
pub use config::{GateConfig, ProofKind, ZonesTopic};
pub use engine::Gate;
pub use messages::{BuildRequest, GateEffect, GateInput, StopReason};
pub use rejected::RejectedZone;
pub use snapshot::{Degraded, Epoch, LiveIndexes, RetireList, Snapshot, SnapshotCell};
pub use status::{GateCounters, GateStatus, Held, HeldCause, PartitionStatus, Reading};
pub use watermark::{EndAnswer, MaxTimestamp, ProofRound};
