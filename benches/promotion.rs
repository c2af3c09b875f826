//! The promotion of one changed zone beside the full rebuild, at several zone counts (DESIGN 12, "one-zone promotion"). The
//! plain engine merges its trees now and then: its cost is the mean over many promotions in a row, merges included. And the
//! next change of one zone that has changed often before, which must not cost by how often.

#[path = "support/allocator.rs"]
mod allocator;
mod support;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence::time::EventTime;

const PER_EDGE: usize = 8;
const IN_A_ROW: usize = 256;

fn promotions(c: &mut Criterion) {
    let mut group = c.benchmark_group("promotion");
    group.sample_size(10);
    for side in [32, 100, 316] {
        let zones = side * side;
        let changes = support::tessellation(side, PER_EDGE);
        let index = support::index(&changes);
        let moved: Vec<_> = (0..IN_A_ROW)
            .map(|n| {
                let number = n * 7_919 % zones;
                support::upsert(
                    number,
                    support::cell(side, (number + 1) % zones, PER_EDGE),
                    (zones + n) as i64,
                )
            })
            .collect();
        group.throughput(criterion::Throughput::Elements(IN_A_ROW as u64));
        group.bench_function(BenchmarkId::new("one_zone", zones), |bench| {
            bench.iter_batched(
                || index.clone(),
                |mut index| {
                    for change in &moved {
                        index = index
                            .promote(
                                std::slice::from_ref(change),
                                EventTime::clamped(0),
                                &support::RULES,
                            )
                            .expect("it builds")
                            .index;
                    }
                    index
                },
                BatchSize::PerIteration,
            );
        });
        group.throughput(criterion::Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("rebuild", zones), |bench| {
            bench.iter(|| support::index(black_box(&changes)));
        });
    }
    group.finish();
}

fn changes_of_one_zone(c: &mut Criterion) {
    let mut group = c.benchmark_group("promotion");
    group.sample_size(10);
    group.throughput(criterion::Throughput::Elements(IN_A_ROW as u64));
    for before in [100, 1_000, 10_000, 100_000] {
        let changes: Vec<_> = (0..before + IN_A_ROW)
            .map(|n| support::upsert(0, support::cell(32, n % 2, PER_EDGE), n as i64))
            .collect();
        let index = support::index(&changes[..before]);
        group.bench_function(BenchmarkId::new("same_zone", before), |bench| {
            bench.iter(|| {
                let mut index = index.clone();
                for change in &changes[before..] {
                    let change = std::slice::from_ref(change);
                    let built = index.promote(change, change[0].valid_from, &support::RULES);
                    index = built.expect("it builds").index;
                }
                index
            });
        });
    }
    group.finish();
}

criterion_group!(benches, promotions, changes_of_one_zone);
criterion_main!(benches);
