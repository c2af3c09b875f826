//! The telemetry side, pure: decode, hold until settled, match, write, account for, commit (DESIGN 4, 7, 8).
//!
//! One [`Engine`] per worker. No I/O, no clock, no thread: records, acknowledgements and group events go in with the
//! time as an argument; outputs go to a [`Sink`], commits and backpressure come out as values. It owns I5 (every
//! record is accounted for), I6 (commits), I7 (bounds of its queues), I8 (order), I13 (one snapshot per batch) and I15
//! (nothing is matched above `as_of`).

pub mod at;
mod breaker;
mod config;
mod counters;
mod delivery;
mod engine;
mod flow;
mod hold;
mod ledger;
mod output;
mod ownership;
pub mod partitioning;
mod repair;
mod snapshot;
mod stop;
mod suspects;
pub mod transaction;
mod view;

pub use crate::enriched::{DeadLetter, Output, Token};
pub use at::{AtRules, MatchMode, OnLate, OnStall, View};
pub use breaker::{BreakerChange, BreakerRules, HeldPartition};
pub use config::{OnInvalid, PipelineConfig};
pub use counters::{Counters, ReasonCounts};
pub use delivery::AckResult;
pub use engine::Engine;
pub use flow::{Flow, Limits, PauseCause, STALL_BEFORE_PAUSE};
pub use output::Sink;
pub use partitioning::Partitioning;
pub use repair::{Refusal, Sending};
pub use stop::{Stop, StopReason};
pub use view::Zones;
