//! Lookups beside the plain baseline, rstar + geo (`Intersects`): uniform points over tessellations of zones with 64
//! vertices, batches of 256 (DESIGN 12, "lookups/s per core"). One iteration answers the same 4,096 points both ways.

#[path = "support/allocator.rs"]
mod allocator;
mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringfence::geometry::Position;
use ringfence::index::{Hits, Query};
use ringfence::time::EventTime;
use support::Seeded;
use support::plain::Geo;

const POINTS: usize = 4_096;
const BATCH: usize = 256;
const PER_EDGE: usize = 16;

fn lookups(c: &mut Criterion) {
    let mut seeded = Seeded::new(7);
    let queries: Vec<Query> = (0..POINTS)
        .map(|_| Query {
            position: Position {
                lon: seeded.unit(),
                lat: seeded.unit(),
            },
            at: EventTime::clamped(1_700_000_000_000),
        })
        .collect();
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(POINTS as u64));
    for side in [32, 100, 316] {
        let zones = side * side;
        let index = support::index(&support::tessellation(side, PER_EDGE));
        let plain = Geo::new(support::polygons(side, PER_EDGE));
        let mut hits = Hits::default();
        let mut ours = || {
            let mut found = 0;
            for batch in queries.chunks(BATCH) {
                index.lookup(batch, &mut hits);
                found += (0..batch.len())
                    .map(|query| hits.of(query).len())
                    .sum::<usize>();
            }
            found
        };
        let baseline = || {
            queries
                .iter()
                .map(|query| plain.at(query.position.lon, query.position.lat).count())
                .sum::<usize>()
        };
        assert_eq!(ours(), baseline(), "both ways find the same zones");
        group.bench_function(BenchmarkId::new("rtree", zones), |bench| {
            bench.iter(&mut ours)
        });
        group.bench_function(BenchmarkId::new("rstar_geo", zones), |bench| {
            bench.iter(baseline)
        });
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
