//! Decodes what was met in the zones topic on as many threads as there are cores. What a record says is a function of its
//! bytes alone, so what comes out is what one thread would give, and it comes in the order of the log.
//!
//! A pool of its own: a build at the end of a bootstrap keeps the shared one busy for seconds, and records, the beat and the
//! proofs would wait for it. Bounded: one batch of the client at a time, and nothing of it is left when that is handed over.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::codec::zone_change::{self, ZoneRules};
use crate::gate::{GateInput, ZoneRecord};
use crate::kafka::zones::ZoneEvent;
use crate::telemetry::{OwnedRecord, RecordRef};

/// With fewer bytes to decode, waking others would take as long as it saves.
const BYTES_PER_THREAD: usize = 16_384;
/// Records that a thread takes at least.
const RECORDS_PER_THREAD: usize = 4;

/// Makes inputs of the gate of what was read.
pub(super) struct Decoder {
    rules: ZoneRules,
    /// `None` where there is one core, or no thread to be had.
    pool: Option<ThreadPool>,
}

impl Decoder {
    /// A decoder on all cores that this process may use.
    pub(super) fn new(rules: ZoneRules) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::on_threads(rules, cores)
    }

    fn on_threads(rules: ZoneRules, threads: usize) -> Self {
        let pool = || {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|number| format!("decoder {number}"))
                .build()
                .ok()
        };
        Self {
            rules,
            pool: (threads > 1).then(pool).flatten(),
        }
    }

    /// The inputs for these events, one for each, in order.
    pub(super) fn inputs(&self, events: &[ZoneEvent<'_>]) -> Vec<GateInput> {
        let bytes: usize = events.iter().map(byte_len).sum();
        match &self.pool {
            Some(pool) if bytes >= 2 * BYTES_PER_THREAD && events.len() > RECORDS_PER_THREAD => {
                let decode = || {
                    events
                        .par_iter()
                        .with_min_len(RECORDS_PER_THREAD)
                        .map(|event| self.input(event))
                        .collect()
                };
                pool.install(decode)
            }
            _ => events.iter().map(|event| self.input(event)).collect(),
        }
    }

    fn input(&self, event: &ZoneEvent<'_>) -> GateInput {
        match event {
            ZoneEvent::Record(record) if zone_change::is_marker(record.key, record.value) => {
                GateInput::Marker {
                    position: record.position(),
                    timestamp: record.timestamp,
                }
            }
            ZoneEvent::Record(record) => GateInput::Record(Box::new(self.record(record))),
            ZoneEvent::End {
                partition,
                next_offset,
            } => GateInput::EndOfPartition {
                partition: *partition,
                next_offset: *next_offset,
            },
            ZoneEvent::OutOfRange(partition) => GateInput::OutOfRange(*partition),
        }
    }

    fn record(&self, record: &RecordRef<'_>) -> ZoneRecord {
        ZoneRecord {
            position: record.position(),
            timestamp: record.timestamp,
            outcome: zone_change::decode(record.key, record.value, &self.rules)
                .map_err(|rejection| (zone_change::zone_of_key(record.key), rejection)),
            bytes: record.byte_len(),
            record: Some(Arc::new(OwnedRecord::from(record))),
        }
    }
}

fn byte_len(event: &ZoneEvent<'_>) -> usize {
    match event {
        ZoneEvent::Record(record) => record.byte_len(),
        ZoneEvent::End { .. } | ZoneEvent::OutOfRange(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::ShapeRules;
    use crate::partition::{Offset, PartitionId};
    use crate::telemetry::RecordTimestamp;
    use crate::time::EventTime;

    fn value(kind: u8, number: usize) -> Option<String> {
        let ring = |corners: &str| {
            Some(format!(
                r#"{{"type":"Feature","id":"z{number}","properties":{{"pad":"{}"}},"geometry":{{"type":"Polygon","coordinates":[[{corners}]]}}}}"#,
                "x".repeat(number * 37 % 3_000)
            ))
        };
        match kind {
            0 => None,
            1 => Some("{".to_owned()),
            2 => ring("[0,0],[1,1],[1,0],[0,1],[0,0]"),
            _ => ring(&format!("[0,0],[{number}.5,0],[3,3],[0,0]")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        /// Removals, records that are refused, markers, ends: one input each, in order, whoever decoded it.
        #[test]
        fn several_threads_give_what_one_gives_in_the_order_of_the_log(
            kinds in prop::collection::vec((0_u8..8, 0_i32..3), 0..400),
        ) {
            let rules = || ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
            let texts: Vec<(String, Option<String>)> = kinds
                .iter()
                .enumerate()
                .map(|(number, (kind, _))| (format!("z{number}"), value(*kind, number)))
                .collect();
            let events: Vec<ZoneEvent<'_>> = kinds
                .iter()
                .zip(&texts)
                .zip(0..)
                .map(|(((kind, partition), (key, value)), offset)| {
                    let (partition, offset) = (PartitionId(*partition), Offset(offset));
                    match kind {
                        6 => ZoneEvent::End { partition, next_offset: offset },
                        _ => ZoneEvent::Record(RecordRef {
                            partition,
                            offset,
                            timestamp: RecordTimestamp::LogAppend(EventTime::clamped(offset.0)),
                            key: Some(if *kind == 7 { zone_change::MARKER_KEY } else { key.as_bytes() }),
                            value: value.as_deref().filter(|_| *kind != 7).map(str::as_bytes),
                            headers: &[],
                        }),
                    }
                })
                .collect();
            let one = Decoder::on_threads(rules(), 1).inputs(&events);
            let four = Decoder::on_threads(rules(), 4).inputs(&events);
            prop_assert_eq!(one.len(), events.len());
            prop_assert_eq!(format!("{one:?}"), format!("{four:?}"));
        }
    }
}
