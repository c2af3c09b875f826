//! Ringfence's codec beside the plain way, in absolute figures (criterion); `scripts/bench` has the ratio.

#[path = "support/allocator.rs"]
mod allocator;
mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::telemetry::RecordTimestamp;
use support::record;

fn round_trip(c: &mut Criterion) {
    let fields = Fields::new(&FieldRules::default()).expect("the default fields are good");
    let zones = record::zones();
    let records = record::records();
    record::assert_same(&fields, &zones, &records);
    let mut layouts = Layouts::default();
    let mut records = records.iter().map(String::as_bytes).cycle();
    let mut next = || black_box(records.next().expect("it goes round"));
    let mut out = Vec::new();
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ours", |bench| {
        bench.iter(|| record::ours(&fields, &mut layouts, &zones, next(), &mut out));
    });
    group.bench_function("ours_extract_only", |bench| {
        bench.iter(|| fields.decode(Some(next()), RecordTimestamp::Missing));
    });
    group.bench_function("serde_json_value", |bench| {
        bench.iter(|| record::plain(&zones, next(), &mut out));
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
