//! Lookups beside the plain baseline, rstar + geo (`Intersects`): uniform points over tessellations of zones with 64
//! vertices, batches of 256 (DESIGN 12, "lookups/s per core"). One iteration answers the same 4,096 points both ways.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use geo::{Intersects, Polygon};
use ringfence::geometry::Position;
use ringfence::index::{Hits, Query};
use ringfence::time::EventTime;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};
use support::Seeded;

const POINTS: usize = 4_096;
const BATCH: usize = 256;
const PER_EDGE: usize = 16;

type Plain = RTree<GeomWithData<Rectangle<[f64; 2]>, usize>>;

fn plain(side: usize) -> (Plain, Vec<Polygon<f64>>) {
    let polygons: Vec<Polygon<f64>> = (0..side * side)
        .map(|number| {
            let ring: Vec<(f64, f64)> = support::cell(side, number, PER_EDGE)
                .iter()
                .map(|at| (at.lon, at.lat))
                .collect();
            Polygon::new(ring.into(), Vec::new())
        })
        .collect();
    let entries = polygons
        .iter()
        .enumerate()
        .map(|(number, polygon)| {
            let bounds = geo::BoundingRect::bounding_rect(polygon).expect("a cell has bounds");
            let (min, max) = (bounds.min(), bounds.max());
            GeomWithData::new(
                Rectangle::from_corners([min.x, min.y], [max.x, max.y]),
                number,
            )
        })
        .collect();
    (RTree::bulk_load(entries), polygons)
}

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
        let (tree, polygons) = plain(side);
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
            let mut found = 0;
            for query in &queries {
                let point = geo::Point::new(query.position.lon, query.position.lat);
                let at = AABB::from_point([query.position.lon, query.position.lat]);
                found += tree
                    .locate_in_envelope_intersecting(at)
                    .filter(|entry| polygons[entry.data].intersects(&point))
                    .count();
            }
            found
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
