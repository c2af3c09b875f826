//! Telemetry records of about 300 bytes, read and written back with their zones: Ringfence's codec, and the plain way, a
//! `serde_json::Value` round trip. Both are as strict, and give the same bytes for a record without spaces.

use std::sync::Arc;

use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::Fields;
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::ShapeRules;
use ringfence::telemetry::RecordTimestamp;
use ringfence::zone::{Zone, ZoneChange};
use serde_json::Value;

use super::Seeded;

/// So many records go through in turn.
pub const RECORDS: usize = 1_024;

/// Some records, of many vehicles. Their values have as many digits and letters as they come to have: nothing that reads them
/// can know from one where the values of the next one end.
pub fn records() -> Vec<String> {
    let mut seeded = Seeded::new(7);
    (0..RECORDS)
        .map(|number| record(number, &mut seeded))
        .collect()
}

fn record(number: usize, seeded: &mut Seeded) -> String {
    let mut below = |end: u64| (seeded.unit() * end as f64) as u64;
    // As most encoders write them: no zeros behind.
    let mut decimal = |end: u64, scale: f64| below(end) as f64 / scale;
    let (lat, lon) = (decimal(90_000_000_000, 1e9), -decimal(180_000_000_000, 1e9));
    let (speed, heading, accuracy) = (
        decimal(1_200, 10.0),
        decimal(3_600, 10.0),
        decimal(250, 10.0),
    );
    let mut one_of = |texts: &[&'static str]| texts[below(texts.len() as u64) as usize];
    let engine = one_of(&["on", "on", "on", "idle"]);
    let route = one_of(&["803", "7", "801", "20"]);
    let headsign = one_of(&[
        "Domain North Lamar",
        "Duval",
        "Tech Ridge via Congress",
        "Manor Riverside",
    ]);
    let occupancy = one_of(&[
        "FEW_SEATS_AVAILABLE",
        "EMPTY",
        "MANY_SEATS_AVAILABLE",
        "STANDING_ROOM_ONLY",
    ]);
    format!(
        concat!(
            r#"{{"id":"vehicle-{:06}","ts":{},"lat":{},"lon":{},"#,
            r#""speed_kmh":{},"heading":{},"accuracy_m":{},"odometer_m":{},"engine":"{}","#,
            r#""route":{{"id":"{}","trip":"{}","headsign":"{}","stop_sequence":{}}},"#,
            r#""driver":"d-{}","occupancy":"{}","seq":{}}}"#
        ),
        below(10_000),
        1_700_000_000_123 + number,
        lat,
        lon,
        speed,
        heading,
        accuracy,
        below(400_000_000),
        engine,
        route,
        1_874_000 + below(1_000),
        headsign,
        1 + below(40),
        below(3_000),
        occupancy,
        below(1_000_000),
    )
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
