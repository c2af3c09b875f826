//! The spliced value: it parses, holds the zones and their properties, and every other byte is the original's.

use std::sync::{Arc, OnceLock};

use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::codec::zone_change::{ZoneRules, decode};
use ringfence::geometry::ShapeRules;
use ringfence::telemetry::RecordTimestamp;
use ringfence::zone::{Zone, ZoneChange};
use serde_json::{Value, json};

use super::members::Members;

/// Ids that need escapes and ones that do not, in the order of their code points.
const IDS: [&str; 4] = ["a", "b\"\\\u{1}", "é", "😀"];

fn zones() -> &'static [Arc<Zone>] {
    static ZONES: OnceLock<Vec<Arc<Zone>>> = OnceLock::new();
    ZONES.get_or_init(|| {
        let rules = ZoneRules::new(ShapeRules::default(), 10_000, &["name".to_owned()]);
        let zone = |(at, id): (usize, &&str)| {
            let properties = if at % 2 == 0 {
                json!({ "name": format!("\"{id}\"") })
            } else {
                json!({})
            };
            let feature = json!({
                "type": "Feature", "id": id, "properties": properties,
                "geometry": { "type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]] },
            });
            let change = decode(Some(id.as_bytes()), Some(feature.to_string().as_bytes()), &rules);
            match change.unwrap().change {
                ZoneChange::Upsert(zone) => zone,
                ZoneChange::Remove => unreachable!("a feature is an upsert"),
            }
        };
        IDS.iter().enumerate().map(zone).collect()
    })
}

/// The target.
pub fn run(data: &[u8]) {
    // Which zones is the input's to choose, in a way that no mutation of the document disturbs for long.
    let chosen = data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let zones: Vec<&Zone> = zones()
        .iter()
        .enumerate()
        .filter(|(at, _)| chosen >> at & 1 == 1)
        .map(|(_, zone)| &**zone)
        .collect();
    for with_properties in [false, true] {
        let rules = FieldRules {
            with_properties,
            ..FieldRules::default()
        };
        let fields = Fields::new(&rules).unwrap();
        let Ok(decoded) = fields.decode(Some(data), RecordTimestamp::Missing) else {
            continue;
        };
        // What was there before is to be gone.
        let mut out = b"not cleared".to_vec();
        fields.splice(
            data,
            &decoded.splice,
            zones.iter().map(|zone| zone.text()),
            &mut out,
        );
        let (original, out) = (
            std::str::from_utf8(data).unwrap(),
            std::str::from_utf8(&out).unwrap(),
        );
        judge(original, out, &zones, with_properties);
    }
}

fn judge(original: &str, out: &str, zones: &[&Zone], with_properties: bool) {
    serde_json::from_str::<Value>(out).expect("the enriched value is JSON");
    let ids = json!(
        zones
            .iter()
            .map(|zone| zone.id.as_str())
            .collect::<Vec<_>>()
    );
    let properties: Value = zones
        .iter()
        .filter(|zone| zone.properties_json.is_some())
        .map(|zone| {
            (
                zone.id.to_string(),
                json!({ "name": format!("\"{}\"", zone.id) }),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut added = vec![("zones", ids)];
    if with_properties {
        added.push(("zones_properties", properties));
    }
    let (before, after) = (Members::of(original).unwrap(), Members::of(out).unwrap());
    for (name, value) in &added {
        assert_eq!(after.count(name), 1, "`{name}` stands there once");
        assert_eq!(after.value(name).as_ref(), Some(value), "`{name}`");
    }
    // Taken out again, the original is left: a member that was there before with its old value, one that was not
    // with the comma before it.
    let mut places: Vec<_> = added
        .iter()
        .map(|(name, _)| (after.range(name, out).unwrap(), *name))
        .collect();
    places.sort_unstable_by_key(|(range, _)| range.start);
    let (mut rebuilt, mut copied) = (String::new(), 0);
    for (range, name) in places {
        match before.first(name) {
            Some(old) => {
                rebuilt.push_str(&out[copied..range.start]);
                rebuilt.push_str(old);
            }
            None => {
                let member = format!("\"{name}\":");
                let kept = out[copied..range.start]
                    .strip_suffix(&member)
                    .expect("a new member has its name right before it");
                let is_first = rebuilt.is_empty() && kept.trim_end().ends_with('{');
                let kept = if is_first {
                    Some(kept)
                } else {
                    kept.strip_suffix(',')
                };
                rebuilt.push_str(kept.expect("a comma before a new member"));
            }
        }
        copied = range.end;
    }
    rebuilt.push_str(&out[copied..]);
    assert_eq!(rebuilt, original, "every other byte is the original's");
}
