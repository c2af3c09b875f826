//! What an event costs from `Engine::ingest` to its acknowledgement, with a sink that writes nothing: uniform points over
//! 10,000 zones, records of about 300 bytes, batches of 500 (DESIGN 12, "matching at event time ÷ latest").
//!
//! `event`: settled, matched straight from the batch. `latest`: the same with `match = "latest"`. `held`: every event
//! waits for the next `as_of`, as live events do behind the settle margin: it is copied, and released in a later turn.
//! `no_zones`: `event` over an empty index, so what is left is the pipeline's own cost and the codec's.

mod support;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::gate::{Degraded, Epoch, Snapshot};
use ringfence::geometry::ShapeRules;
use ringfence::index::{BuildRules, EngineKind, Index};
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::{
    AckResult, AtRules, DeadLetter, Engine, MatchMode, Output, PipelineConfig, Sink, Token,
};
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::{EventTime, MonoTime, Now};
use ringfence::zone::StagedChange;
use support::Seeded;

const BATCH: usize = 500;
const BATCHES: usize = 40;
const SIDE: usize = 100;
const EVENT_TIME: i64 = 1_700_000_000_000;

/// Keeps the tokens only.
#[derive(Default)]
struct Null {
    tokens: Vec<Token>,
    bytes: usize,
}

impl Sink for Null {
    fn enriched(&mut self, output: Output<'_>) {
        self.tokens.push(output.token);
        self.bytes += output.value.map_or(0, <[u8]>::len);
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        panic!(
            "every record of the benchmark is valid: {:?}",
            letter.source
        );
    }
}

/// A grid of overlapping rings with 64 vertices each, over one square degree.
fn index() -> Arc<Index> {
    let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
    let changes: Vec<StagedChange> = (0..SIDE * SIDE)
        .map(|zone| {
            let cell = 1.0 / SIDE as f64;
            let (x, y) = ((zone % SIDE) as f64 * cell, (zone / SIDE) as f64 * cell);
            let corners: Vec<String> = (0..=64)
                .map(|corner| {
                    let angle = f64::from(corner % 64) / 64.0 * std::f64::consts::TAU;
                    let (lon, lat) = (x + 0.6 * cell * angle.cos(), y + 0.6 * cell * angle.sin());
                    format!("[{lon},{lat}]")
                })
                .collect();
            let id = format!("zone-{zone}");
            let value = format!(
                r#"{{"type":"Feature","id":"{id}","properties":{{}},"geometry":{{"type":"Polygon","coordinates":[[{}]]}}}}"#,
                corners.join(",")
            );
            let decoded =
                zone_change::decode(Some(id.as_bytes()), Some(value.as_bytes()), &rules)
                    .expect("the zone is valid");
            support::staged(decoded, zone, value.len())
        })
        .collect();
    let rules = BuildRules {
        history_bytes_max: 1 << 29,
        filing: false,
    };
    let as_of = EventTime::clamped(EVENT_TIME);
    let built = Index::empty(EngineKind::default()).promote(&changes, as_of, &rules);
    Arc::new(built.expect("the zones can be indexed").index)
}

fn records() -> Vec<String> {
    let mut seeded = Seeded::new(3);
    let time = EventTime::clamped(EVENT_TIME);
    (0..BATCH * BATCHES)
        .map(|number| support::event(number, time, &mut seeded))
        .collect()
}

struct Bench {
    engine: Engine<Snapshot>,
    sink: Null,
    now: Now,
}

impl Bench {
    fn new(mode: MatchMode) -> Self {
        let fields = Fields::new(&FieldRules::default()).expect("the defaults are right");
        let mut config = PipelineConfig::new(fields, "telemetry");
        config.at = AtRules {
            mode,
            ..AtRules::default()
        };
        let mut engine = Engine::new(config);
        engine.assigned(&[PartitionId(0)]);
        let wall = EventTime::clamped(EVENT_TIME + 300);
        Self {
            engine,
            sink: Null::default(),
            now: Now {
                mono: MonoTime::default(),
                wall,
            },
        }
    }

    fn ack(&mut self) {
        for token in self.sink.tokens.drain(..) {
            self.engine.acked(token, AckResult::Delivered);
        }
    }
}

fn pipeline(c: &mut Criterion) {
    let settled = Snapshot {
        index: index(),
        epoch: Epoch(1),
        as_of: EventTime::clamped(EVENT_TIME),
        floor: EventTime::MIN,
        degraded: Degraded::No,
    };
    let unsettled = Snapshot {
        as_of: settled.as_of.minus(Duration::from_millis(300)),
        ..settled.clone()
    };
    let values = records();
    let refs: Vec<RecordRef<'_>> = values
        .iter()
        .enumerate()
        .map(|(offset, value)| RecordRef {
            partition: PartitionId(0),
            offset: Offset(offset as i64),
            timestamp: RecordTimestamp::Create(settled.as_of),
            key: Some(b"vehicle"),
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .collect();
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements((BATCH * BATCHES) as u64));
    let event = MatchMode::Event {
        from: None,
        until: None,
    };
    let no_zones = Snapshot {
        index: Arc::new(Index::empty(EngineKind::default())),
        ..settled.clone()
    };
    let cases = [
        ("event", event, &settled),
        ("latest", MatchMode::Latest, &settled),
        ("no_zones", event, &no_zones),
    ];
    for (name, mode, snapshot) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || Bench::new(mode),
                |bench| {
                    for batch in refs.chunks(BATCH) {
                        bench
                            .engine
                            .ingest(batch, snapshot, bench.now, &mut bench.sink);
                        bench.ack();
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("held", |bencher| {
        bencher.iter_batched_ref(
            || Bench::new(event),
            |bench| {
                // A settle margin's worth of batches waits, then as_of passes them.
                for some in refs.chunks(BATCH * 10) {
                    for batch in some.chunks(BATCH) {
                        bench
                            .engine
                            .ingest(batch, &unsettled, bench.now, &mut bench.sink);
                    }
                    while bench.engine.held_count() > 0 {
                        bench.engine.turn(&settled, bench.now, &mut bench.sink);
                    }
                    bench.ack();
                }
                assert_eq!(bench.engine.counters().enriched as usize, refs.len());
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
