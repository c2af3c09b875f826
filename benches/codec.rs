//! One telemetry record of about 300 bytes, read and written back with its zones: Ringfence's codec beside the plain
//! way, a `serde_json::Value` round trip (DESIGN 12). Both are as strict, and give the same value.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::ShapeRules;
use ringfence::telemetry::RecordTimestamp;
use ringfence::zone::{Zone, ZoneChange};
use serde_json::Value;

const RECORD: &str = concat!(
    r#"{"id":"vehicle-004711","ts":1700000000123,"lat":30.267153123,"lon":-97.743060987,"#,
    r#""speed_kmh":43.7,"heading":271.5,"accuracy_m":4.2,"odometer_m":123456789,"engine":"on","#,
    r#""route":{"id":"803","trip":"1874523","headsign":"Domain North Lamar","stop_sequence":17},"#,
    r#""driver":"d-2291","occupancy":"FEW_SEATS_AVAILABLE","seq":918273}"#
);

fn zones() -> Vec<Arc<Zone>> {
    let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
    ["austin-downtown", "district-9", "route-803-corridor"]
        .into_iter()
        .map(|id| {
            let feature = format!(
                r#"{{"type":"Feature","id":"{id}","properties":{{}},"geometry":{{"type":"Polygon",
                "coordinates":[[[-98,30],[-97,30],[-97,31],[-98,31],[-98,30]]]}}}}"#
            );
            let change = zone_change::decode(Some(id.as_bytes()), Some(feature.as_bytes()), &rules);
            match change.map(|change| change.change) {
                Ok(ZoneChange::Upsert(zone)) => zone,
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

fn ours(fields: &Fields, zones: &[Arc<Zone>], value: &[u8], out: &mut Vec<u8>) -> (f64, f64, i64) {
    let decoded = match fields.decode(Some(value), RecordTimestamp::Missing) {
        Ok(decoded) => decoded,
        Err(rejection) => panic!("{rejection}"),
    };
    fields.splice(
        value,
        &decoded.splice,
        zones.iter().map(|zone| &**zone),
        out,
    );
    (
        decoded.event.lat,
        decoded.event.lon,
        decoded.event.time.millis(),
    )
}

fn plain(zones: &[Arc<Zone>], value: &[u8], out: &mut Vec<u8>) -> Option<(f64, f64, i64)> {
    let mut document: Value = serde_json::from_slice(value).ok()?;
    let found = (
        document.get("lat")?.as_f64()?,
        document.get("lon")?.as_f64()?,
        document.get("ts")?.as_i64()?,
    );
    let ids: Vec<Value> = zones.iter().map(|zone| zone.id.as_str().into()).collect();
    document
        .as_object_mut()?
        .insert("zones".to_owned(), Value::Array(ids));
    out.clear();
    serde_json::to_writer(out, &document).ok()?;
    Some(found)
}

fn round_trip(c: &mut Criterion) {
    let fields = Fields::new(&FieldRules::default()).expect("the default fields are good");
    let zones = zones();
    let record = RECORD.as_bytes();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    assert_eq!(
        Some(ours(&fields, &zones, record, &mut a)),
        plain(&zones, record, &mut b)
    );
    assert_eq!(
        String::from_utf8_lossy(&a),
        String::from_utf8_lossy(&b),
        "both ways give the same bytes for a record without spaces"
    );

    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(RECORD.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| ours(&fields, &zones, black_box(record), &mut a));
    });
    group.bench_function("ours_extract_only", |bench| {
        bench.iter(|| fields.decode(Some(black_box(record)), RecordTimestamp::Missing));
    });
    group.bench_function("serde_json_value", |bench| {
        bench.iter(|| plain(&zones, black_box(record), &mut b));
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
