//! Telemetry records of about 300 bytes, read and written back with their zones: Ringfence's codec, and the plain way, a
//! `serde_json::Value` round trip. Both are as strict, and give the same bytes for a record without spaces.

use std::sync::Arc;

use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::Fields;
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::ShapeRules;
use ringfence::telemetry::RecordTimestamp;
use ringfence::time::EventTime;
use ringfence::zone::{Zone, ZoneChange};
use serde_json::Value;

use super::Seeded;

/// So many records go through in turn.
pub const RECORDS: usize = 1_024;

/// Some records, of many vehicles.
pub fn records() -> Vec<String> {
    let mut seeded = Seeded::new(7);
    let record = |number: usize| {
        let time = EventTime::clamped(1_700_000_000_123 + number as i64);
        super::event(number, time, &mut seeded)
    };
    (0..RECORDS).map(record).collect()
}

/// Three zones.
pub fn zones() -> Vec<Arc<Zone>> {
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

/// Ringfence's way: position and time are extracted, the zones are spliced in.
pub fn ours(
    fields: &Fields,
    layouts: &mut Layouts,
    zones: &[Arc<Zone>],
    value: &[u8],
    out: &mut Vec<u8>,
) -> (f64, f64, i64) {
    let decoded = match fields.decode_by(layouts, Some(value), RecordTimestamp::Missing) {
        Ok(decoded) => decoded,
        Err(rejection) => panic!("{rejection}"),
    };
    fields.splice(
        value,
        &decoded.splice,
        zones.iter().map(|zone| zone.text()),
        out,
    );
    (
        decoded.event.lat,
        decoded.event.lon,
        decoded.event.time.millis(),
    )
}

/// The plain way.
pub fn plain(zones: &[Arc<Zone>], value: &[u8], out: &mut Vec<u8>) -> Option<(f64, f64, i64)> {
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

/// Refuses to compare what differs.
///
/// # Panics
/// If the two ways give different bytes.
pub fn assert_same(fields: &Fields, zones: &[Arc<Zone>], records: &[String]) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut layouts = Layouts::default();
    for record in records {
        assert_eq!(
            Some(ours(fields, &mut layouts, zones, record.as_bytes(), &mut a)),
            plain(zones, record.as_bytes(), &mut b)
        );
        assert_eq!(
            String::from_utf8_lossy(&a),
            String::from_utf8_lossy(&b),
            "both ways give the same bytes for a record without spaces"
        );
    }
}
