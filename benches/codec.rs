//! Ringfence's codec beside the plain way, in absolute figures (criterion); `scripts/bench` has the ratio.

#[path = "support/allocator.rs"]
mod allocator;
mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::telemetry::RecordTimestamp;
use support::record::{self, RECORD};

fn round_trip(c: &mut Criterion) {
    let fields = Fields::new(&FieldRules::default()).expect("the default fields are good");
    let zones = record::zones();
    record::assert_same(&fields, &zones);
    let mut layouts = Layouts::default();
    let value = RECORD.as_bytes();
    let mut out = Vec::new();
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(RECORD.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| record::ours(&fields, &mut layouts, &zones, black_box(value), &mut out));
    });
    group.bench_function("ours_extract_only", |bench| {
        bench.iter(|| fields.decode(Some(black_box(value)), RecordTimestamp::Missing));
    });
    group.bench_function("serde_json_value", |bench| {
        bench.iter(|| record::plain(&zones, black_box(value), &mut out));
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
