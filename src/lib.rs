//! Ringfence adds to every telemetry event on Kafka the ids of all geofence zones that cover its position, as of the
//! event's own time.
//!
//! ```text
//!  zones topic ──► zone reader ──► staging ──► promotion: build + validate ──► snapshot (ArcSwap) ──────┐
//!                  1 per process    bounded     gate: low watermark of the      immutable index + as_of  │ one load per batch
//!                                               per-partition watermarks                                 ▼
//!  telemetry ────► worker 1..N ──► decode ──► hold until settled ──► match ──► encode ──► produce ──► ledger ──► commit
//!    topic         a group member each, a thread each, its own partitions                 enriched topic
//! ```
//!
//! # Layers
//!
//! Arrows between modules point down this list only; `tests/it/tidy.rs` keeps them.
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | shell | [`cli`], [`run`], [`shutdown`], [`clock`], [`config`], [`metrics`], [`http`] | threads, clocks, files, sockets |
//! | edge | [`kafka`] | rdkafka; it alone |
//! | witness and tools | [`verify`], [`simulate`] | pure; `verify` shares no matching or gate code with the daemon |
//! | engines | [`gate`] (zones side), [`pipeline`] (telemetry side) | pure state machines: input and time in, effects out |
//! | values | [`index`], [`codec`], [`geometry`] | immutable snapshots of zones; bytes to values and back; shapes |
//! | vocabulary | [`time`], [`partition`], [`zone`], [`telemetry`], [`rejection`] | names |
//!
//! The pure layers import no rdkafka, no tokio and no clock: time is an argument ([`time::Now`]).
//!
//! # Invariants
//!
//! Numbered as in the design; each is asserted in code and cited by number in its test. Where, of each: the head of
//! `tests/it/simulation.rs`.
//!
//! - **I1** The low watermark and `as_of` never go back in one run.
//! - **I2** For floor ≤ t ≤ `as_of` a snapshot answers zones(t), whatever it holds beyond.
//! - **I3** The epoch rises by one per new index.
//! - **I4** A published head and index never change.
//! - **I5** Every consumed record is enriched, dead-lettered, dropped by a stated rule, forwarded, or released at revoke.
//! - **I6** The committed offset is at most that of the oldest unfinished event.
//! - **I7** Every queue is bounded.
//! - **I8** Output order is input order per source partition.
//! - **I9** Polling goes on while partitions are paused.
//! - **I10** A value is zones(`at`); with `match = "event"` and no gate violation two runs give the same `at` and bytes for
//!   every record that is unflagged in both.
//! - **I11** Workers free no snapshot memory.
//! - **I12** All engines of the index give the same zones.
//! - **I13** A batch is matched with one snapshot.
//! - **I14** No telemetry of a shard is read before its bootstrap.
//! - **I15** Nothing is matched above `as_of`.
//! - **I16** Every late change is counted.

pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod enriched;
mod fetch;
pub mod gate;
pub mod geometry;
pub mod http;
pub mod index;
pub mod kafka;
pub mod metrics;
pub mod partition;
pub mod pipeline;
pub mod rejection;
pub mod run;
pub mod shutdown;
pub mod simulate;
pub mod telemetry;
pub mod time;
pub mod verify;
pub mod zone;
