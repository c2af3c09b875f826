//! What the gate tells of itself: its status, what holds it back and why.

use std::time::Duration;

use super::super::watermark::{LastAnswer, PartitionWatermark};
use super::super::{GateStatus, Held, HeldCause, PartitionStatus, ProofKind, Reading};
use super::Gate;
use crate::time::MonoTime;

/// A watermark further behind T than the margin by this much holds the gate back.
const HELD_AFTER: Duration = Duration::from_secs(1);

impl Gate {
    /// What it would tell a person.
    #[must_use]
    pub fn status(&self) -> GateStatus {
        let (held, held_bytes) = self.held_by_builder();
        let published = self.published.as_ref();
        let reading = self.reading();
        GateStatus {
            bootstrapped: published.is_some(),
            waiting_for: self.waiting_for(reading),
            reading,
            starting_over: self.starting_over,
            degraded: published.is_some_and(|published| published.degraded.is_flagged()),
            t: self.now.wall,
            low_watermark: self.low_watermark.max(self.low_watermark_before),
            as_of: published.map(|published| published.as_of),
            floor: published.map(|published| published.floor),
            settle_margin: self.margin.current(),
            epoch: self.epoch,
            zones: published.map_or(0, |published| published.index.zone_count()),
            staged: self.staging.len() + held,
            staged_bytes: self.staging.bytes() + held_bytes,
            paused: self.staging.is_paused(),
            newest_stamp: self.newest_stamp,
            clock_difference_ms: self.clock_difference_ms,
            held_by: self.held_by(),
            partitions: self
                .partitions
                .iter()
                .map(|(partition, state)| PartitionStatus {
                    partition: *partition,
                    watermark: state.watermark(),
                    next_offset: state.staged_to(),
                    log_end: match state.last_answer {
                        LastAnswer::End(end) => Some(end),
                        _ => None,
                    },
                })
                .collect(),
            rejected_zones: self.rejected_zones.told(),
            rejected_zone_count: self.rejected_zones.count(),
            counters: self.counters,
        }
    }

    fn held_by(&self) -> Vec<Held> {
        let behind = self.now.wall.minus(self.margin.current() + HELD_AFTER);
        self.partitions
            .iter()
            .filter(|(_, state)| state.watermark().is_none_or(|watermark| watermark < behind))
            .map(|(partition, state)| Held {
                partition: *partition,
                cause: self.cause(state),
                held_for: self.held_for(state, self.now.mono),
            })
            .collect()
    }

    fn held_for(&self, state: &PartitionWatermark, now: MonoTime) -> Duration {
        now.since(state.reached_end_at)
    }

    fn cause(&self, state: &PartitionWatermark) -> HeldCause {
        if self.now.mono.since(state.last_answer_at) > HELD_AFTER {
            return HeldCause::NoAnswer;
        }
        match state.last_answer {
            LastAnswer::None => HeldCause::NoAnswer,
            LastAnswer::Unanswered => HeldCause::LargestTimestamp,
            LastAnswer::End(_) if self.staging.is_paused() => HeldCause::Paused,
            // Read to where the client sees the end, but not to the end: only a transaction hides what is between.
            LastAnswer::End(end)
                if state.staged_to() < end
                    && state
                        .end_of_partition()
                        .is_some_and(|seen| seen >= state.next_offset()) =>
            {
                HeldCause::OpenTransaction
            }
            LastAnswer::End(end)
                if state.kind() == ProofKind::Marker && state.staged_to() >= end =>
            {
                HeldCause::NoMarker
            }
            LastAnswer::End(_) => HeldCause::BehindEnd,
        }
    }

    fn reading(&self) -> Option<Reading> {
        if !self.is_reading_from_start() {
            return None;
        }
        let mut reading = Reading {
            read: 0,
            of: 0,
            zones: self.index.zone_count(),
        };
        for state in self.partitions.values() {
            let (read, of) = state.read_of()?;
            reading.read += read;
            reading.of += of;
        }
        Some(reading)
    }

    fn waiting_for(&self, reading: Option<Reading>) -> String {
        if self.published.is_some() && !self.starting_over {
            return String::new();
        }
        let waiting: Vec<String> = self
            .partitions
            .iter()
            .filter(|(_, state)| state.watermark().is_none())
            .map(|(partition, state)| {
                format!("partition {partition} ({})", self.cause(state).as_str())
            })
            .collect();
        if !waiting.is_empty() {
            let far = reading.map_or_else(String::new, |Reading { read, of, .. }| {
                format!("; {read} of {of} records read")
            });
            format!(
                "zones topic to be read to its end: {}{far}",
                waiting.join(", ")
            )
        } else if self.promotion.is_some() || self.staging.len() > 0 {
            "index to be built".to_owned()
        } else if self.starting_over {
            "the new reading to reach the published as_of".to_owned()
        } else {
            "a zone in force: `ringfence zones import` brings some (or set `zones.allow_empty`)"
                .to_owned()
        }
    }
}
