//! What a worker takes in: batches from the shared queue, borrowed, and the errors that stand in a message's place.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{BATCH, StartAt, TURN, Worker, WorkerError};
use crate::clock::Clock;
use crate::kafka::{EdgeError, is_transient};
use crate::metrics::OBSERVED_EVERY;
use crate::partition::PartitionId;
use crate::pipeline::{BreakerChange, Zones};
use crate::rejection::RejectionReason;
use crate::telemetry::{HeaderRef, RecordRef};

/// What events take from decoding to writing: two clock reads a batch, and one event in [`OBSERVED_EVERY`] observed.
pub(super) struct MatchDuration {
    seconds: ::metrics::Histogram,
    /// Events since one was observed.
    unobserved: usize,
}

impl MatchDuration {
    pub(super) fn new() -> Self {
        Self {
            seconds: crate::metrics::MATCH_DURATION.histogram(),
            unobserved: 0,
        }
    }

    fn observe(&mut self, batch: Duration, events: usize) {
        let each = batch.as_secs_f64() / events as f64;
        self.unobserved += events;
        self.seconds
            .record_many(each, self.unobserved / OBSERVED_EVERY);
        self.unobserved %= OBSERVED_EVERY;
    }
}

impl<Z, G, L> Worker<Z, L>
where
    Z: Zones,
    G: Deref<Target = Z>,
    L: Fn() -> G,
{
    /// Takes a batch from the shared queue, its errors too, and hands it to the engine.
    pub(super) fn ingest(&mut self) -> Result<(), WorkerError> {
        // Neither what is held, nor acknowledgements and answers of a transaction that ends, are to wait for a record.
        let wait = if self.engine.held_count() > 0 || self.outbox.is_filling_next() {
            Duration::from_millis(1)
        } else {
            TURN
        };
        let batch = self.member.take(self.flow.take.min(BATCH), wait);
        if batch.is_empty() {
            return Ok(());
        }
        // Headers of all records stand in one list; the records borrow their stretch of it.
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
        let mut ends = Vec::with_capacity(batch.len());
        let mut failures = Vec::new();
        for message in batch.fetched() {
            if let Some(code) = message.error() {
                failures.push((message.partition(), code));
            } else {
                message.headers(&mut headers);
            }
            ends.push(headers.len());
        }
        let mut from = 0;
        let mut records = Vec::with_capacity(batch.len());
        for (message, to) in batch.messages().zip(ends) {
            if message.error().is_none() {
                records.push(RecordRef {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp(),
                    key: message.key(),
                    value: message.value(),
                    headers: &headers[from..to],
                });
            }
            from = to;
        }
        if !self.unstarted.is_empty() {
            for record in &records {
                if self.unstarted.remove(&record.partition) {
                    self.starts.insert(record.partition, record.offset);
                }
            }
        }
        if !records.is_empty() {
            let snapshot = (self.load)();
            let begun = Clock::mono();
            self.engine
                .ingest(&records, &snapshot, self.time.now(), &mut self.outbox);
            self.match_duration
                .observe(Clock::mono().since(begun), records.len());
        }
        drop(records);
        drop(headers);
        drop(batch);
        let mut gone = Vec::new();
        for (partition, code) in failures {
            match code {
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                    gone.push(partition);
                }
                code => self.failed(partition, code)?,
            }
        }
        if !gone.is_empty() {
            self.out_of_range(&gone)?;
        }
        Ok(())
    }

    /// Says what the breaker of the dead letters did (FS-44).
    pub(super) fn tell_breaker_changes(&mut self) {
        for (partition, change) in self.engine.take_breaker_changes() {
            match change {
                BreakerChange::Opened { wait, reason } => {
                    self.seen.breaker_opened += 1;
                    tracing::error!(%partition, reason = reason.map(RejectionReason::as_str), retry_s = wait.as_secs(),
                        "most telemetry records are invalid: the partition is held, its records are not dead-lettered; \
                         mend what writes them, or set `dead_letter.breaker_percent` to 0 to let them go");
                }
                BreakerChange::Probing => {
                    tracing::info!(%partition, "a few records of the held partition are let through");
                }
                BreakerChange::Closed => {
                    tracing::info!(%partition, "most telemetry records are valid again: the partition goes on");
                }
            }
        }
    }

    /// An error that took a message's place in the queue.
    fn failed(
        &mut self,
        partition: PartitionId,
        code: RDKafkaErrorCode,
    ) -> Result<(), WorkerError> {
        match code {
            RDKafkaErrorCode::PartitionEOF => Ok(()),
            code if is_transient(code) => Ok(()),
            code => {
                let doing = format!(
                    "read partition {partition} of topic `{}`",
                    self.settings.telemetry_topic
                );
                Err(EdgeError::Cluster {
                    doing,
                    source: KafkaError::MessageConsumption(code),
                }
                .into())
            }
        }
    }

    fn out_of_range(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        self.finish_end()?;
        let mut moved = Vec::new();
        for partition in partitions {
            let partition = *partition;
            if !self.engine.owned().contains(&partition) {
                continue;
            }
            let position = self.position(partition);
            let Some(policy) = self.settings.on_out_of_range else {
                return Err(WorkerError::OutOfRange {
                    partition,
                    position,
                });
            };
            let (log_start, log_end) = self.member.log_bounds(partition)?;
            let start = match policy {
                StartAt::Earliest => log_start,
                StartAt::Latest => log_end,
            };
            let lost = position.map_or(0, |position| {
                u64::try_from(start.0 - position.0).unwrap_or(0)
            });
            tracing::error!(%partition, position = position.map(|at| at.0), goes_on_at = start.0, lost,
                "the telemetry log no longer holds the position, records are lost");
            self.seen.out_of_range += 1;
            self.seen.out_of_range_lost += lost;
            // What is in flight belongs to a log that is no longer there.
            self.engine.lost(&[partition]);
            moved.push((partition, start));
        }
        if moved.is_empty() {
            return Ok(());
        }
        self.member.commit(&moved)?;
        self.rejoin()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Samples(AtomicUsize);

    impl ::metrics::HistogramFn for Samples {
        fn record(&self, seconds: f64) {
            assert!((seconds - 1e-6).abs() < 1e-12, "{seconds}");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn of_batches_of_every_length_one_event_in_64_is_observed() {
        let samples = Arc::new(Samples::default());
        let mut duration = MatchDuration {
            seconds: ::metrics::Histogram::from_arc(Arc::clone(&samples)),
            unobserved: 0,
        };
        let mut events = 0;
        for length in 1..=BATCH {
            duration.observe(Duration::from_micros(length as u64), length);
            events += length;
            assert_eq!(samples.0.load(Ordering::Relaxed), events / 64);
        }
    }
}
