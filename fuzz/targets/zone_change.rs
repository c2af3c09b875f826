//! A zone record: it is read or refused, never guessed; what is accepted is a shape that answers for itself.

use ringfence::codec::zone_change::{ZoneRules, decode};
use ringfence::geometry::{Area, OnInvalid, ShapeRules};
use ringfence::zone::{DecodedChange, ZoneChange};
use serde_json::Value;

const VERTICES_MAX: usize = 500;
const PARTS_MAX: usize = 20;
const BYTES_MAX: usize = 8_192;

fn rules(on_invalid: OnInvalid) -> ZoneRules {
    let shape = ShapeRules {
        on_invalid,
        vertices_max: VERTICES_MAX,
        parts_max: PARTS_MAX,
    };
    ZoneRules::new(shape, BYTES_MAX, &["name".to_owned()])
}

/// The target.
pub fn run(data: &[u8]) {
    let document = serde_json::from_slice::<Value>(data).ok();
    let key = document
        .as_ref()
        .and_then(id_of)
        .unwrap_or_else(|| "z".to_owned());
    let read = |on_invalid| decode(Some(key.as_bytes()), Some(data), &rules(on_invalid));
    let (strict, repaired) = (read(OnInvalid::Reject), read(OnInvalid::Repair));
    for change in [&strict, &repaired].into_iter().flatten() {
        let document = document
            .as_ref()
            .expect("what is accepted is JSON to serde_json too");
        assert!(document.is_object() && data.len() <= BYTES_MAX);
        judge(change, &key);
    }
    let Ok(strict) = strict else { return };
    let repaired = repaired.expect("a valid shape needs no repair");
    match (&strict.change, &repaired.change) {
        (ZoneChange::Upsert(one), ZoneChange::Upsert(other)) => {
            assert!(one.area.vertex_count() <= VERTICES_MAX, "caps hold");
            let place = one.area.interior_point();
            assert!(
                other.area.covers(place),
                "repair leaves a valid shape as it is"
            );
        }
        (ZoneChange::Remove, ZoneChange::Remove) => {}
        _ => panic!("the two readings differ"),
    }
}

fn judge(change: &DecodedChange, key: &str) {
    assert_eq!(change.zone_id.as_str(), key);
    let ZoneChange::Upsert(zone) = &change.change else {
        assert!(change.expires_at.is_none(), "a removal does not end");
        return;
    };
    assert_eq!(zone.id, change.zone_id);
    let id: String = serde_json::from_str(&zone.id_json).expect("an id fit to be spliced");
    assert_eq!(id, key);
    if let Some(properties) = &zone.properties_json {
        let properties: Value =
            serde_json::from_str(properties).expect("properties fit to be spliced");
        assert!(properties.get("name").is_some());
    }
    covers_itself(&zone.area);
}

fn covers_itself(area: &Area) {
    let place = area.interior_point();
    assert!(
        area.covers(place),
        "the interior point {place:?} is covered"
    );
    let holds = |lon: f64, lat: f64| {
        area.envelopes().iter().any(|envelope| {
            (envelope.lon_min..=envelope.lon_max).contains(&lon)
                && (envelope.lat_min..=envelope.lat_max).contains(&lat)
        })
    };
    assert!(
        holds(place.lon, place.lat),
        "the envelopes hold the interior point {place:?}"
    );
    for vertex in area.edges().map(|edge| edge.from) {
        if vertex.lon.abs() <= 180.0 {
            assert!(
                area.covers(vertex),
                "the boundary belongs to the zone: {vertex:?}"
            );
            assert!(
                holds(vertex.lon, vertex.lat),
                "the envelopes hold the vertex {vertex:?}"
            );
        }
    }
}

/// The id as the contract has it: `id`, else `properties.zone_id`; null is as good as absent.
fn id_of(document: &Value) -> Option<String> {
    let places = [&document["id"], &document["properties"]["zone_id"]];
    match places.into_iter().find(|id| !id.is_null())? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}
