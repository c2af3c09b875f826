//! Reads a record of the zones topic: a GeoJSON Feature, a deletion, or a tombstone (DESIGN 3).
//!
//! One strict pass over the value finds the members that matter; positions are then read straight into a
//! [`RawShape`](crate::geometry::RawShape) under the caps on vertices and parts, so that no tree of the document ever exists. What a Feature
//! says beside that (bbox, foreign members, other properties) is not looked at.
//!
//! | value | is |
//! |---|---|
//! | no value (a Kafka tombstone) | a removal at its commit time |
//! | an object with `"deleted": true` | a removal; `effective_at` at its top level, else in `properties` |
//! | a Feature | an upsert; times, `version` and `radius_m` in `properties` |

use std::sync::Arc;

use crate::codec::instant;
use crate::codec::json::{self, Kind, unescape};
use crate::codec::pointer::{PathId, Paths, Pointer, Slot};
use crate::codec::shape;
use crate::geometry::{Area, ShapeRules};
use crate::rejection::{Rejection, RejectionReason};
use crate::time::EventTime;
use crate::zone::{DecodedChange, Zone, ZoneChange, ZoneId};

/// How zone records are judged.
#[derive(Clone, Debug)]
pub struct ZoneRules {
    shape: ShapeRules,
    max_bytes: usize,
    /// The configured properties: the member to write (`"name":`) and where it stands.
    properties: Vec<(Box<str>, PathId)>,
    members: Members,
}

impl ZoneRules {
    /// Rules with these caps; `properties` are the zone properties that outputs carry.
    #[must_use]
    pub fn new(shape: ShapeRules, max_bytes: usize, properties: &[String]) -> Self {
        let mut members = Members::new();
        let mut carried: Vec<(Box<str>, PathId)> = Vec::new();
        for name in properties {
            let path = members.paths.add(&Pointer::of(&["properties", name]));
            if carried.iter().all(|(_, known)| *known != path) {
                carried.push((format!("{}:", json::string(name)).into(), path));
            }
        }
        let max_bytes = max_bytes.min(u32::MAX as usize);
        Self {
            shape,
            max_bytes,
            properties: carried,
            members,
        }
    }
}

/// Where the members stand that a zone record is read by.
#[derive(Clone, Debug)]
struct Members {
    paths: Paths,
    kind: PathId,
    id: PathId,
    zone_id: PathId,
    deleted: PathId,
    effective_at_of_delete: PathId,
    version_of_delete: PathId,
    geometry: PathId,
    geometry_type: PathId,
    coordinates: PathId,
    properties: PathId,
    radius_m: PathId,
    effective_at: PathId,
    expires_at: PathId,
    version: PathId,
}

impl Members {
    fn new() -> Self {
        let mut paths = Paths::new();
        let mut add = |names: &[&str]| paths.add(&Pointer::of(names));
        Self {
            kind: add(&["type"]),
            id: add(&["id"]),
            zone_id: add(&["properties", "zone_id"]),
            deleted: add(&["deleted"]),
            effective_at_of_delete: add(&["effective_at"]),
            version_of_delete: add(&["version"]),
            geometry: add(&["geometry"]),
            geometry_type: add(&["geometry", "type"]),
            coordinates: add(&["geometry", "coordinates"]),
            properties: add(&["properties"]),
            radius_m: add(&["properties", "radius_m"]),
            effective_at: add(&["properties", "effective_at"]),
            expires_at: add(&["properties", "expires_at"]),
            version: add(&["properties", "version"]),
            paths,
        }
    }
}

/// The key of the markers that `gate.proof = "marker"` writes: tombstones, so that whoever does not know them reads the
/// removal of a zone that never was, and compaction keeps one of them.
pub const MARKER_KEY: &[u8] = b"ringfence-marker";

/// Whether a record of the zones topic is a marker: it says nothing of zones, and all processes pass over it.
#[must_use]
pub fn is_marker(key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
    key == Some(MARKER_KEY) && value.is_none()
}

/// The zone that a record's key names, if it names one: what a rejection is about.
#[must_use]
pub fn zone_of_key(key: Option<&[u8]>) -> Option<ZoneId> {
    let text = std::str::from_utf8(key?).ok()?;
    (!text.is_empty()).then(|| ZoneId::new(text))
}

/// Reads a record of the zones topic; `None` = null.
///
/// # Errors
/// The rule that the record broke; [`zone_of_key`] tells which zone is concerned.
pub fn decode(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    rules: &ZoneRules,
) -> Result<DecodedChange, Rejection> {
    let Some(key) = zone_of_key(key) else {
        return Err(Rejection::new(
            RejectionReason::NoKey,
            "the key must be the zone id, in UTF-8",
        ));
    };
    if key.as_str().as_bytes() == MARKER_KEY {
        return Err(Rejection::new(
            RejectionReason::InvalidId,
            "`ringfence-marker` is the key of markers, no zone id",
        ));
    }
    let Some(value) = value else {
        return Ok(removal(key, None, None));
    };
    if value.is_empty() {
        return Err(Rejection::new(
            RejectionReason::EmptyValue,
            "a deletion has a null value",
        ));
    }
    if value.len() > rules.max_bytes {
        return Err(Rejection::new(
            RejectionReason::TooLarge,
            format!(
                "{} bytes, at most {} are read",
                value.len(),
                rules.max_bytes
            ),
        ));
    }
    let document = Document::scan(json::utf8(value)?, rules)?;
    let id = document.zone_id()?;
    if id != key {
        return Err(Rejection::new(
            RejectionReason::KeyMismatch,
            "the key is not the zone id of the value",
        ));
    }
    if document.is_deletion()? {
        document.removal(id)
    } else {
        document.upsert(id)
    }
}

fn removal(
    zone_id: ZoneId,
    effective_at: Option<EventTime>,
    version: Option<i64>,
) -> DecodedChange {
    DecodedChange {
        zone_id,
        change: ZoneChange::Remove,
        effective_at,
        expires_at: None,
        version,
    }
}

/// A checked document with the places of its members.
struct Document<'a> {
    text: &'a str,
    rules: &'a ZoneRules,
    slots: Vec<Option<Slot>>,
}

impl<'a> Document<'a> {
    fn scan(text: &'a str, rules: &'a ZoneRules) -> Result<Self, Rejection> {
        let paths = &rules.members.paths;
        let mut slots = vec![None; paths.slot_count()];
        paths.scan_object(text, &mut slots)?;
        Ok(Self { text, rules, slots })
    }

    fn members(&self) -> &'a Members {
        &self.rules.members
    }

    /// The member at `path`; null is as good as absent, as exporters write it for what they do not have.
    fn member(&self, path: PathId) -> Option<Slot> {
        Paths::slot(&self.slots, path).filter(|slot| slot.kind != Kind::Null)
    }

    /// `id`, else `properties.zone_id`: a string, or an integer in shortest decimal.
    fn zone_id(&self) -> Result<ZoneId, Rejection> {
        let members = self.members();
        let found = self
            .member(members.id)
            .map(|slot| ("id", slot))
            .or_else(|| {
                self.member(members.zone_id)
                    .map(|slot| ("properties.zone_id", slot))
            });
        let Some((name, slot)) = found else {
            return Err(Rejection::new(
                RejectionReason::MissingField,
                "neither `id` nor `properties.zone_id` is there",
            ));
        };
        read_id(self.text, slot, name)
    }

    fn is_deletion(&self) -> Result<bool, Rejection> {
        match self.member(self.members().deleted).map(|slot| slot.kind) {
            None | Some(Kind::False) => Ok(false),
            Some(Kind::True) => Ok(true),
            Some(_) => Err(wrong_type("deleted", "a boolean")),
        }
    }

    fn removal(&self, id: ZoneId) -> Result<DecodedChange, Rejection> {
        let members = self.members();
        let effective_at = match self.instant(members.effective_at_of_delete, "effective_at")? {
            None => self.instant(members.effective_at, "properties.effective_at")?,
            at => at,
        };
        let version = match self.version(members.version_of_delete, "version")? {
            None => self.version(members.version, "properties.version")?,
            version => version,
        };
        Ok(removal(id, effective_at, version))
    }

    fn upsert(&self, zone_id: ZoneId) -> Result<DecodedChange, Rejection> {
        let members = self.members();
        let is_feature = self
            .member(members.kind)
            .and_then(|slot| slot.string(self.text))
            .is_some_and(|string| string.is("Feature"));
        if !is_feature {
            return Err(Rejection::new(
                RejectionReason::NotAFeature,
                "`type` is not `Feature`, and it is no deletion",
            ));
        }
        if self
            .member(members.properties)
            .is_some_and(|slot| slot.kind != Kind::Object)
        {
            return Err(wrong_type("properties", "an object or null"));
        }
        let effective_at = self.instant(members.effective_at, "properties.effective_at")?;
        let expires_at = self.instant(members.expires_at, "properties.expires_at")?;
        let version = self.version(members.version, "properties.version")?;
        let source = shape::Source {
            document: self.text,
            geometry: self.member(members.geometry),
            kind: self.member(members.geometry_type),
            coordinates: self.member(members.coordinates),
            radius_m: self.member(members.radius_m),
        };
        let area = Area::new(shape::read(&source, &self.rules.shape)?, &self.rules.shape)?;
        let zone = Zone {
            id: zone_id.clone(),
            id_json: json::string(zone_id.as_str()).into(),
            area,
            properties_json: self.carried_properties(),
            version,
        };
        Ok(DecodedChange {
            zone_id,
            change: ZoneChange::Upsert(Arc::new(zone)),
            effective_at,
            expires_at,
            version,
        })
    }

    fn instant(&self, path: PathId, name: &str) -> Result<Option<EventTime>, Rejection> {
        self.member(path)
            .map(|slot| instant::read(self.text, slot, name))
            .transpose()
    }

    fn version(&self, path: PathId, name: &str) -> Result<Option<i64>, Rejection> {
        let Some(slot) = self.member(path) else {
            return Ok(None);
        };
        let version = (slot.kind == Kind::Integer).then(|| slot.text(self.text).parse().ok());
        match version.flatten() {
            Some(version) => Ok(Some(version)),
            None => Err(wrong_type(name, "an integer of 64 bits")),
        }
    }

    /// The configured properties that the zone has, null ones too, each value's bytes as they stand.
    fn carried_properties(&self) -> Option<Box<str>> {
        let mut out = String::new();
        for (member, path) in &self.rules.properties {
            if let Some(slot) = Paths::slot(&self.slots, *path) {
                out.push(if out.is_empty() { '{' } else { ',' });
                out.push_str(member);
                out.push_str(slot.text(self.text));
            }
        }
        (!out.is_empty()).then(|| {
            out.push('}');
            out.into_boxed_str()
        })
    }
}

/// Reads a zone id: a string, or an integer in shortest decimal, which is how JSON writes it already.
pub(crate) fn read_id(document: &str, slot: Slot, name: &str) -> Result<ZoneId, Rejection> {
    let text = slot.text(document);
    let id = match slot.kind {
        Kind::Integer => {
            // Beyond 64 bits readers that use floats would see another number, and `-0` is a float to every library
            // that tells them apart: neither names one zone.
            let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
            (fits && text != "-0").then(|| text.to_owned())
        }
        _ => slot
            .string(document)
            .map(|string| unescape(string.raw).collect()),
    };
    match id {
        Some(id) if !id.is_empty() => Ok(ZoneId::new(&id)),
        _ => Err(Rejection::new(
            RejectionReason::InvalidId,
            format!("`{name}` is neither a string with a character nor an integer of 64 bits"),
        )),
    }
}

fn wrong_type(name: &str, expected: &str) -> Rejection {
    Rejection::new(
        RejectionReason::WrongType,
        format!("`{name}` is not {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Position;
    use crate::rejection::RejectionReason as Reason;

    const SQUARE: &str = r#"{"type":"Polygon","coordinates":[[[0,0],[2,0],[2,2],[0,2],[0,0]]]}"#;

    fn rules() -> ZoneRules {
        ZoneRules::new(ShapeRules::default(), 1 << 20, &[])
    }

    fn decoded(key: &str, value: &str) -> Result<DecodedChange, Reason> {
        decode(Some(key.as_bytes()), Some(value.as_bytes()), &rules())
            .map_err(|rejection| rejection.reason)
    }

    fn feature(members: &str) -> String {
        format!(r#"{{"type":"Feature","geometry":{SQUARE},{members}}}"#)
    }

    fn shape(geometry: &str) -> Result<DecodedChange, Reason> {
        decoded(
            "z",
            &format!(r#"{{"type":"Feature","id":"z","geometry":{geometry},"properties":null}}"#),
        )
    }

    fn zone(change: &DecodedChange) -> &Zone {
        match &change.change {
            ZoneChange::Upsert(zone) => zone,
            ZoneChange::Remove => panic!("a removal"),
        }
    }

    fn covers(change: &DecodedChange, lon: f64, lat: f64) -> bool {
        zone(change).area.covers(Position { lon, lat })
    }

    #[test]
    fn a_feature_is_an_upsert_with_all_it_says() {
        let value = feature(
            r#""bbox":[0,0,2,2],"properties":{"expires_at":"1970-01-01T00:00:02Z","name":"x",
            "version":-3,"effective_at":1000},"id":"z""#,
        );
        let change = decoded("z", &value).unwrap();
        assert_eq!(change.zone_id.as_str(), "z");
        assert_eq!(change.effective_at, EventTime::from_millis(1000));
        assert_eq!(change.expires_at, EventTime::from_millis(2000));
        assert_eq!(change.version, Some(-3));
        assert_eq!(zone(&change).version, Some(-3));
        assert_eq!(&*zone(&change).id_json, "\"z\"");
        assert_eq!(zone(&change).properties_json, None);
        assert!(covers(&change, 1.0, 1.0) && !covers(&change, 3.0, 1.0));
    }

    #[test]
    fn null_members_are_as_good_as_absent() {
        let value = feature(
            r#""id":null,"properties":{"zone_id":"z","effective_at":null,"expires_at":null,"version":null}"#,
        );
        let change = decoded("z", &value).unwrap();
        assert_eq!(
            (change.effective_at, change.expires_at, change.version),
            (None, None, None)
        );
    }

    #[test]
    fn ids_are_strings_or_integers_in_shortest_decimal() {
        for (id, key) in [
            ("\"7\"", "7"),
            ("7", "7"),
            ("-7", "-7"),
            ("0", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("\"07\"", "07"),
            ("\"a\\u0020\\u00e9\\ud83d\\ude00\"", "a é😀"),
        ] {
            let change = decoded(key, &feature(&format!("\"id\":{id}"))).unwrap();
            assert_eq!(change.zone_id.as_str(), key);
            let by_property = feature(&format!("\"properties\":{{\"zone_id\":{id}}}"));
            assert_eq!(decoded(key, &by_property).unwrap().zone_id.as_str(), key);
        }
        let both = feature("\"id\":1,\"properties\":{\"zone_id\":\"other\"}");
        assert!(decoded("1", &both).is_ok(), "`id` comes first");
        assert_eq!(decoded("other", &both).unwrap_err(), Reason::KeyMismatch);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for id in [
            "\"\"",
            "1.0",
            "1e3",
            "-0",
            "18446744073709551616",
            "true",
            "[1]",
            "{}",
        ] {
            let value = feature(&format!("\"id\":{id}"));
            assert_eq!(decoded("z", &value).unwrap_err(), Reason::InvalidId, "{id}");
        }
        assert_eq!(
            decoded("z", &feature("\"properties\":{}")).unwrap_err(),
            Reason::MissingField
        );
    }

    #[test]
    fn the_key_is_the_zone_id() {
        let value = feature("\"id\":\"z\"");
        for key in ["y", "z ", "Z", "zz"] {
            assert_eq!(
                decoded(key, &value).unwrap_err(),
                Reason::KeyMismatch,
                "{key}"
            );
        }
        let of_key =
            |key: Option<&[u8]>| decode(key, Some(value.as_bytes()), &rules()).unwrap_err();
        for key in [None, Some(b"".as_slice()), Some(b"\xff".as_slice())] {
            assert_eq!(of_key(key).reason, Reason::NoKey);
            assert_eq!(zone_of_key(key), None);
        }
        assert_eq!(zone_of_key(Some(b"z")), Some(ZoneId::new("z")));
    }

    #[test]
    fn a_tombstone_and_a_deletion_remove() {
        let change = decode(Some(b"z"), None, &rules()).unwrap();
        assert!(matches!(change.change, ZoneChange::Remove));
        assert_eq!(change.effective_at, None);
        for (value, effective_at, version) in [
            (r#"{"id":"z","deleted":true}"#, None, None),
            (
                r#"{"deleted":true,"id":"z","effective_at":5,"version":2}"#,
                Some(5),
                Some(2),
            ),
            (
                r#"{"deleted":true,"properties":{"zone_id":"z","effective_at":6,"version":3}}"#,
                Some(6),
                Some(3),
            ),
            (
                r#"{"deleted":true,"id":"z","effective_at":5,"properties":{"effective_at":6}}"#,
                Some(5),
                None,
            ),
            (
                r#"{"type":"Feature","id":"z","geometry":null,"properties":null,"deleted":true}"#,
                None,
                None,
            ),
        ] {
            let change = decoded("z", value).unwrap();
            assert!(matches!(change.change, ZoneChange::Remove), "{value}");
            assert_eq!(
                change.effective_at.map(EventTime::millis),
                effective_at,
                "{value}"
            );
            assert_eq!(change.version, version, "{value}");
            assert_eq!(change.expires_at, None);
        }
        assert!(matches!(
            decoded("z", &feature("\"id\":\"z\",\"deleted\":false"))
                .unwrap()
                .change,
            ZoneChange::Upsert(_)
        ));
    }

    #[test]
    fn configured_properties_are_carried_in_configured_order_with_their_bytes() {
        let carried = ["b", "a\"", "b", "missing", "zone_id"].map(str::to_owned);
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &carried);
        let value = feature(r#""properties":{"zone_id":"z","a\u0022":[ 1.50 ],"b":null,"c":1}"#);
        let change = decode(Some(b"z"), Some(value.as_bytes()), &rules).unwrap();
        assert_eq!(
            zone(&change).properties_json.as_deref(),
            Some(r#"{"b":null,"a\"":[ 1.50 ],"zone_id":"z"}"#)
        );
    }

    #[test]
    fn each_way_to_be_wrong_has_its_reason() {
        let geometry =
            |geometry: &str| format!(r#"{{"type":"Feature","id":"z","geometry":{geometry}}}"#);
        let cases = [
            (String::new(), Reason::EmptyValue),
            ("{".into(), Reason::NotJson),
            ("null".into(), Reason::NotAnObject),
            (
                format!("[{}]", feature("\"id\":\"z\"")),
                Reason::NotAnObject,
            ),
            (r#"{"id":"z"}"#.into(), Reason::NotAFeature),
            (r#"{"id":"z","deleted":false}"#.into(), Reason::NotAFeature),
            (r#"{"id":"z","deleted":"true"}"#.into(), Reason::WrongType),
            (r#"{"deleted":true}"#.into(), Reason::MissingField),
            (r#"{"id":"z","type":"feature"}"#.into(), Reason::NotAFeature),
            (
                r#"{"id":"z","type":["Feature"]}"#.into(),
                Reason::NotAFeature,
            ),
            (
                r#"{"id":"z","type":"FeatureCollection","features":[]}"#.into(),
                Reason::NotAFeature,
            ),
            (
                r#"{"id":"z","type":"Polygon","coordinates":[]}"#.into(),
                Reason::NotAFeature,
            ),
            (
                r#"{"id":"z","type":"Feature"}"#.into(),
                Reason::GeometryType,
            ),
            (geometry("null"), Reason::GeometryType),
            (geometry("[]"), Reason::GeometryType),
            (geometry("{}"), Reason::GeometryType),
            (
                geometry(r#"{"type":"GeometryCollection","geometries":[]}"#),
                Reason::GeometryType,
            ),
            (
                geometry(r#"{"type":"LineString","coordinates":[[0,0],[1,1]]}"#),
                Reason::GeometryType,
            ),
            (
                geometry(r#"{"type":"polygon","coordinates":[]}"#),
                Reason::GeometryType,
            ),
            (geometry(r#"{"type":"Polygon"}"#), Reason::MissingField),
            (
                geometry(r#"{"type":"Point","coordinates":[0,0]}"#),
                Reason::InvalidRadius,
            ),
            (feature("\"id\":\"z\",\"properties\":[]"), Reason::WrongType),
            (
                feature("\"id\":\"z\",\"properties\":{\"version\":1.5}"),
                Reason::WrongType,
            ),
            (
                feature("\"id\":\"z\",\"properties\":{\"version\":\"1\"}"),
                Reason::WrongType,
            ),
            (
                feature("\"id\":\"z\",\"properties\":{\"effective_at\":\"soon\"}"),
                Reason::TimeRange,
            ),
            (
                feature("\"id\":\"z\",\"properties\":{\"expires_at\":[]}"),
                Reason::WrongType,
            ),
            (feature("\"id\":\"z\",\"id\":\"z\""), Reason::DuplicateKey),
            (
                feature(&format!("\"id\":\"z\",\"geometry\":{SQUARE}")),
                Reason::DuplicateKey,
            ),
            (
                feature("\"id\":\"z\",\"properties\":{\"version\":1,\"version\":2}"),
                Reason::DuplicateKey,
            ),
        ];
        for (value, reason) in cases {
            assert_eq!(decoded("z", &value).unwrap_err(), reason, "{value}");
        }
    }

    #[test]
    fn radius_must_be_a_number() {
        for radius in ["\"5\"", "null", "true", "[5]"] {
            let value = format!(
                r#"{{"type":"Feature","id":"z","geometry":{{"type":"Point","coordinates":[1,2]}},
                "properties":{{"radius_m":{radius}}}}}"#
            );
            assert_eq!(
                decoded("z", &value).unwrap_err(),
                Reason::InvalidRadius,
                "{radius}"
            );
        }
    }

    #[test]
    fn heights_are_ignored_and_members_may_come_in_any_order() {
        let change = shape(
            r#"{"coordinates":[[[[0,0,5],[2,0],[2,2,1,7],[0,2,-1e3],[0,0]]]],"type":"MultiPolygon"}"#,
        )
        .unwrap();
        assert!(covers(&change, 1.0, 1.0));
    }

    #[test]
    fn positions_that_are_none_are_refused() {
        for coordinates in [
            "[[[0,0],[2,0],[2],[0,0]]]",
            "[[[0,0],[2,0],[],[0,0]]]",
            "[[[0,0],[2,0],[2,\"2\"],[0,0]]]",
            "[[[0,0],[2,0],[2,2,null],[0,0]]]",
            "[[[0,0],[2,0],[2,[2]],[0,0]]]",
            "[[[0,0],[2,0],null,[0,0]]]",
            "[[[0,0],[2,0],{\"x\":1},[0,0]]]",
            "[[0,0],[2,0],[2,2],[0,0]]",
            "[[[[0,0],[2,0],[2,2],[0,0]]]]",
            "[0,0]",
            "7",
            "{}",
            "\"0,0 2,0\"",
        ] {
            let geometry = format!("{{\"type\":\"Polygon\",\"coordinates\":{coordinates}}}");
            assert_eq!(
                shape(&geometry).unwrap_err(),
                Reason::InvalidPosition,
                "{coordinates}"
            );
        }
    }

    #[test]
    fn caps_are_judged_before_the_shape_is() {
        let shape = ShapeRules {
            vertices_max: 5,
            parts_max: 2,
            ..ShapeRules::default()
        };
        let rules = ZoneRules::new(shape, 400, &[]);
        let reason = |coordinates: &str| {
            let value = format!(
                r#"{{"type":"Feature","id":"z","geometry":{{"type":"MultiPolygon","coordinates":{coordinates}}}}}"#
            );
            decode(Some(b"z"), Some(value.as_bytes()), &rules)
                .map_err(|r| r.reason)
                .err()
        };
        assert_eq!(reason("[[[[0,0],[2,0],[2,2],[0,2],[0,0]]]]"), None);
        assert_eq!(
            reason("[[[[0,0],[2,0],[2,2],[1,3],[0,2],[0,0]]]]"),
            Some(Reason::TooManyVertices)
        );
        assert_eq!(reason("[[[],[]],[[]]]"), Some(Reason::TooManyParts));
        assert_eq!(reason("[[],[],[]]"), Some(Reason::TooManyParts));
        assert_eq!(
            reason(&format!("[{}]", " ".repeat(400))),
            Some(Reason::TooLarge)
        );
    }
}
