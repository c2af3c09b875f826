//! The hot path allocates nothing for an event: counted, for each engine, from a batch of records to its acknowledgements.

use std::f64::consts::TAU;
use std::sync::Arc;

use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::gate::{Degraded, Epoch, Snapshot};
use ringfence::index::{BuildRules, EngineKind, Index};
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::{
    AckResult, DeadLetter, Engine, Output, PipelineConfig, Sink, Token, Zones as _,
};
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::{EventTime, MonoTime, Now};

use crate::support::zones::{change, t};

const BATCH: usize = 500;
const SIDE: usize = 12;
const NOW: i64 = 1_700_000_000_000;

/// Takes the outputs as the worker's outbox does, and gives them to nobody.
struct Taken {
    tokens: Vec<Token>,
    ids: usize,
}

impl Sink for Taken {
    fn enriched(&mut self, output: Output<'_>) {
        self.tokens.push(output.token);
        let value = output.value.unwrap_or_default();
        self.ids += value.windows(4).filter(|four| four == b"\"box").count();
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        panic!("every record is valid: {:?}", letter.source);
    }
}

/// Rings that overlap their neighbours, over one square degree.
fn snapshot(kind: EngineKind) -> Snapshot {
    let cell = 1.0 / SIDE as f64;
    let changes: Vec<_> = (0..SIDE * SIDE)
        .map(|zone| {
            let (x, y) = ((zone % SIDE) as f64 * cell, (zone / SIDE) as f64 * cell);
            let corners: Vec<String> = (0..=40)
                .map(|corner| {
                    let angle = f64::from(corner % 40) / 40.0 * TAU;
                    let (lon, lat) = (x + 0.8 * cell * angle.cos(), y + 0.8 * cell * angle.sin());
                    format!("[{lon},{lat}]")
                })
                .collect();
            let id = format!("box-{zone}");
            let ring = corners.join(",");
            let value = format!(
                r#"{{"type":"Feature","id":"{id}","properties":{{}},"geometry":{{"type":"Polygon","coordinates":[[{ring}]]}}}}"#
            );
            change(0, zone as i64, 1, &id, Some(&value))
        })
        .collect();
    let rules = BuildRules {
        history_bytes_max: 1 << 29,
        filing: false,
    };
    let built = Index::empty(kind).promote(&changes, t(NOW), &rules);
    Snapshot {
        index: Arc::new(built.unwrap().index),
        epoch: Epoch(1),
        as_of: t(NOW),
        floor: EventTime::MIN,
        degraded: Degraded::No,
    }
}

/// Some of them on a boundary's vertex, where only the exact answer decides.
fn value(number: usize) -> String {
    let (lon, lat) = if number.is_multiple_of(7) {
        let cell = 1.0 / SIDE as f64;
        ((number % SIDE) as f64 * cell + 0.8 * cell, 3.0 * cell)
    } else {
        let part = |step: f64| (0.5 + number as f64 * step).fract();
        (part(0.754_877_666_246_693), part(0.569_840_290_998_053))
    };
    format!(
        r#"{{"id":"vehicle-{number}","ts":{NOW},"lat":{lat},"lon":{lon},"route":{{"id":"803","stops":[1,2,3]}},"note":"a \"word\""}}"#
    )
}

#[test]
fn an_event_is_enriched_without_an_allocation_once_the_buffers_are_warm() {
    for kind in EngineKind::NAMED {
        let snapshot = snapshot(kind);
        let fields = Fields::new(&FieldRules::default()).unwrap();
        let mut engine = Engine::new(PipelineConfig::new(fields, "telemetry"));
        engine.assigned(&[PartitionId(0)]);
        let mut sink = Taken {
            tokens: Vec::with_capacity(BATCH),
            ids: 0,
        };
        let now = Now {
            mono: MonoTime::default(),
            wall: snapshot.view().as_of,
        };
        let values: Vec<String> = (0..4 * BATCH).map(|number| value(number % BATCH)).collect();
        let records: Vec<RecordRef<'_>> = values
            .iter()
            .enumerate()
            .map(|(offset, value)| RecordRef {
                partition: PartitionId(0),
                offset: Offset(offset as i64),
                timestamp: RecordTimestamp::Create(t(NOW)),
                key: Some(b"vehicle"),
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .collect();
        let mut commits = Vec::with_capacity(4);
        let mut turn = |batch: &[RecordRef<'_>]| {
            engine.ingest(batch, &snapshot, now, &mut sink);
            assert_eq!(sink.tokens.len(), BATCH, "all is settled");
            for token in sink.tokens.drain(..) {
                engine.acked(token, AckResult::Delivered);
            }
            engine.take_commits(&mut commits);
            commits.clear();
            std::mem::take(&mut sink.ids)
        };
        let mut batches = records.chunks_exact(BATCH);
        let warm = batches.by_ref().take(2).map(&mut turn).max();
        assert!(
            warm > Some(BATCH),
            "{kind:?}: more than a zone an event, {warm:?}"
        );
        for batch in batches {
            let counted = allocation_counter::measure(|| {
                assert_eq!(Some(turn(batch)), warm);
            });
            assert_eq!(counted.count_total, 0, "{kind:?}: {counted:?}");
        }
    }
}
