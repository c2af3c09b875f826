//! Writes zone changes and reads their acknowledgements: how many the cluster refused, and how many came after the
//! instant that they ask for.

use std::time::Duration;

use serde_json::Value;

use crate::cli::{Context, Outcome};
use crate::kafka::EdgeError;
use crate::kafka::client::Settings;
use crate::kafka::writer::{Outgoing, Receipt, TopicWriter};
use crate::time::EventTime;

/// A record for the zones topic.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: String,
    /// `None` = a tombstone.
    pub(super) value: Option<Vec<u8>>,
}

/// What became of a run of changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) count: u64,
    /// Stamped after their `effective_at`: they act later than the others.
    pub(super) late: u64,
    /// Not in the topic, the first few by name and cause.
    pub(super) failed: Vec<String>,
    pub(super) failed_count: u64,
}

/// What is said of a run of changes beside what became of them.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// For a person.
    pub(super) text: String,
    /// For machines, to be added.
    pub(super) counts: Value,
    /// What those can do about it whose changes came too late.
    pub(super) if_late: &'static str,
}

/// How many failures are named.
const NAMED: usize = 10;

/// Writes the changes and waits for all acknowledgements.
pub(super) fn write(
    settings: &Settings,
    topic: &str,
    changes: Vec<Change>,
    effective_at: Option<EventTime>,
    context: &Context,
) -> Result<Written, EdgeError> {
    let writer = TopicWriter::new(settings)?;
    let progress = context.progress(changes.len() as u64, "writing");
    let mut written = Written::default();
    let mut take = |receipt: Receipt| {
        progress.inc(1);
        match receipt.outcome {
            Ok((_, stamp)) => {
                written.count += 1;
                let late = stamp
                    .instant()
                    .zip(effective_at)
                    .is_some_and(|(stamp, at)| stamp > at);
                written.late += u64::from(late);
            }
            Err(why) => {
                written.failed_count += 1;
                if written.failed.len() < NAMED {
                    written
                        .failed
                        .push(format!("`{}`: {why}", changes[receipt.tag].key));
                }
            }
        }
    };
    for (tag, change) in changes.iter().enumerate() {
        let outgoing = Outgoing {
            topic,
            key: Some(change.key.as_bytes()),
            value: change.value.as_deref(),
            ..Outgoing::default()
        };
        while !writer.send(&outgoing, tag)? {
            writer
                .receipt(Duration::from_millis(100))
                .into_iter()
                .for_each(&mut take);
        }
        writer.receipts().for_each(&mut take);
    }
    while writer.in_flight() > 0 {
        writer
            .receipt(Duration::from_millis(100))
            .into_iter()
            .for_each(&mut take);
    }
    writer.receipts().for_each(&mut take);
    progress.finish_and_clear();
    Ok(written)
}

impl Written {
    /// Says what became of them.
    pub(super) fn tell(
        &self,
        told: Told,
        effective_at: Option<EventTime>,
        context: &Context,
    ) -> Outcome {
        if context.json {
            let mut report = told.counts;
            report["written"] = self.count.into();
            report["late"] = self.late.into();
            report["failed"] = self.failed_count.into();
            report["effective_at"] = effective_at.map(EventTime::millis).into();
            context.report_json(&report);
        } else {
            let from = effective_at
                .map(|at| format!(", effective at {at}"))
                .unwrap_or_default();
            context.report(format_args!("{}{from}", told.text));
        }
        if self.late > 0 {
            context.note(format_args!(
                "{} of them reached the topic after that instant and act from then on, so not all together; {}",
                self.late, told.if_late
            ));
        }
        if self.failed_count > 0 {
            context.note(format_args!(
                "{} were not written: {}",
                self.failed_count,
                self.failed.join(", ")
            ));
        }
        if self.late + self.failed_count == 0 {
            Outcome::Done
        } else {
            Outcome::Found
        }
    }
}
