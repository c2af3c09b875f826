//! The witness: reads what the topics hold and recomputes every answer by a slow path of its own. It is fed records in
//! any order of arrival (in offset order per partition) and told how far the logs are read; it keeps no clock and does
//! no I/O. Of the daemon's code it uses the vocabulary and the codec's word on which zone records are valid, nothing
//! else: no matching, no gate, no pipeline. Judged records are dropped, so it can follow a running daemon.

mod against;
mod audit;
mod event;
mod judge;
mod report;
mod rules;
mod shape;
mod source;
mod timeline;
mod value;

pub use against::{Comparison, Difference, Known};
pub use audit::{Audit, Backlog};
pub use event::Pointers;
pub use report::{Finding, Report, Tally};
pub use rules::{Matching, Rules};
