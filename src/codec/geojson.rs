//! Writes zone records: a Feature made ready for the zones topic with its other bytes kept, Features and deletions
//! from scratch, and FeatureCollections of Features as they stand in the topic.

use std::io::{self, Write};
use std::ops::Range;

use crate::codec::json::{self, Kind};
use crate::codec::pointer::{PathId, Paths, Pointer, Slot};
use crate::codec::zone_change::read_id;
use crate::geometry::{Position, RawShape};
use crate::rejection::{Rejection, RejectionReason};
use crate::time::EventTime;
use crate::zone::ZoneId;

/// Makes Features of a file ready for the zones topic: finds the zone id, and writes it and an `effective_at` into
/// the Feature.
#[derive(Clone, Debug)]
pub struct Stamp {
    paths: Paths,
    id: PathId,
    zone_id: PathId,
    properties: PathId,
    effective_at: PathId,
    /// The property that holds the id, where one was named.
    id_property: Option<(String, PathId)>,
    max_bytes: usize,
}

impl Stamp {
    /// A stamp for Features of at most `max_bytes` whose id is `id`, else `properties.zone_id`, or where `id_property`
    /// names one, that property.
    #[must_use]
    pub fn new(id_property: Option<&str>, max_bytes: usize) -> Self {
        let mut paths = Paths::new();
        let mut add = |names: &[&str]| paths.add(&Pointer::of(names));
        Self {
            id: add(&["id"]),
            zone_id: add(&["properties", "zone_id"]),
            properties: add(&["properties"]),
            effective_at: add(&["properties", "effective_at"]),
            id_property: id_property
                .map(|name| (format!("properties.{name}"), add(&["properties", name]))),
            paths,
            max_bytes: max_bytes.min(u32::MAX as usize),
        }
    }

    /// The Feature's zone id (the record's key), and the Feature with that `id` and, where given, `effective_at` in
    /// it (the record's value). Every other byte is kept; a Feature that says both already is not changed at all.
    ///
    /// Only what this needs is judged; whether the Feature is a good zone is for
    /// [`zone_change::decode`](crate::codec::zone_change::decode) to say.
    ///
    /// # Errors
    /// What is wrong with the document, its id or its `properties`.
    pub fn apply(
        &self,
        feature: &[u8],
        effective_at: Option<EventTime>,
    ) -> Result<(ZoneId, Vec<u8>), Rejection> {
        if feature.len() > self.max_bytes {
            return Err(Rejection::new(
                RejectionReason::TooLarge,
                format!("more than {} bytes", self.max_bytes),
            ));
        }
        let text = json::utf8(feature)?;
        let mut slots = vec![None; self.paths.slot_count()];
        let scanned = self.paths.scan_object(text, &mut slots)?;
        let place = |path| Paths::slot(&slots, path);
        let id = self.read_id(text, &slots)?;
        let mut edits = Edits::default();
        // Without a named property the id was read where the topic's readers find it too.
        let written = place(self.id).and_then(|slot| read_id(text, slot, "id").ok());
        if self.id_property.is_some() && written.as_ref() != Some(&id) {
            let value = json::string(id.as_str());
            match place(self.id) {
                Some(slot) => edits.replace(slot.range(), value.into()),
                None => edits.add_member("id", &value, 0..scanned.close + 1, false),
            }
        }
        if let Some(at) = effective_at {
            let value = at.millis().to_string();
            match (place(self.effective_at), place(self.properties)) {
                (Some(slot), _) => edits.replace(slot.range(), value),
                (None, Some(slot)) if slot.kind == Kind::Object => {
                    let range = slot.range();
                    let inside = &text[range.start + 1..range.end - 1];
                    edits.add_member("effective_at", &value, range, inside.trim().is_empty());
                }
                (None, Some(slot)) if slot.kind == Kind::Null => {
                    edits.replace(slot.range(), format!("{{\"effective_at\":{value}}}"));
                }
                (None, Some(_)) => {
                    return Err(Rejection::new(
                        RejectionReason::WrongType,
                        "`properties` is not an object or null",
                    ));
                }
                (None, None) => {
                    let value = format!("{{\"effective_at\":{value}}}");
                    edits.add_member("properties", &value, 0..scanned.close + 1, false);
                }
            }
        }
        Ok((id, edits.apply(text)))
    }

    /// Whether the Feature says an `effective_at` of its own, which [`Self::apply`] writes over.
    #[must_use]
    pub fn finds_instant(&self, feature: &[u8]) -> bool {
        let mut slots = vec![None; self.paths.slot_count()];
        let is_read =
            json::utf8(feature).is_ok_and(|text| self.paths.scan_object(text, &mut slots).is_ok());
        let found = Paths::slot(&slots, self.effective_at);
        is_read && found.is_some_and(|slot| slot.kind != Kind::Null)
    }

    fn read_id(&self, text: &str, slots: &[Option<Slot>]) -> Result<ZoneId, Rejection> {
        let place = |path| Paths::slot(slots, path).filter(|slot: &Slot| slot.kind != Kind::Null);
        let found = match &self.id_property {
            Some((name, path)) => place(*path).map(|slot| (name.as_str(), slot)),
            None => place(self.id)
                .map(|slot| ("id", slot))
                .or_else(|| place(self.zone_id).map(|slot| ("properties.zone_id", slot))),
        };
        let Some((name, slot)) = found else {
            let what = match &self.id_property {
                Some((name, _)) => format!("`{name}` is absent or null"),
                None => "neither `id` nor `properties.zone_id` is there".to_owned(),
            };
            return Err(Rejection::new(RejectionReason::MissingField, what));
        };
        read_id(text, slot, name)
    }
}

/// Replacements in a text, applied together.
#[derive(Debug, Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, range: Range<usize>, with: String) {
        self.0.push((range, with));
    }

    /// Adds a member before the closing brace of the object at `object`.
    fn add_member(&mut self, name: &str, value: &str, object: Range<usize>, empty: bool) {
        let comma = if empty { "" } else { "," };
        let close = object.end - 1;
        self.0.push((
            close..close,
            format!("{comma}{}:{value}", json::string(name)),
        ));
    }

    fn apply(mut self, text: &str) -> Vec<u8> {
        // Stable: two additions to one object stay in the order in which they were made.
        self.0.sort_by_key(|(range, _)| range.start);
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut copied = 0;
        for (range, with) in &self.0 {
            out.extend_from_slice(&text.as_bytes()[copied..range.start]);
            out.extend_from_slice(with.as_bytes());
            copied = range.end;
        }
        out.extend_from_slice(&text.as_bytes()[copied..]);
        out
    }
}

/// The value that removes a zone at `effective_at`, or where there is none, at its commit time.
#[must_use]
pub fn removal(id: &ZoneId, effective_at: Option<EventTime>) -> String {
    let id = json::string(id.as_str());
    effective_at.map_or_else(
        || format!("{{\"id\":{id},\"deleted\":true}}"),
        |at| {
            format!(
                "{{\"id\":{id},\"deleted\":true,\"effective_at\":{}}}",
                at.millis()
            )
        },
    )
}

/// A Feature with this shape and these properties (names, and values as JSON), in this order.
///
/// Numbers are written so that reading them gives the same bits.
#[must_use]
pub fn feature(id: &ZoneId, shape: &RawShape, properties: &[(&str, &str)]) -> String {
    let mut out = format!(
        "{{\"type\":\"Feature\",\"id\":{}",
        json::string(id.as_str())
    );
    out.push_str(",\"geometry\":");
    let radius = match shape {
        RawShape::MultiPolygon(polygons) => {
            if let [rings] = polygons.as_slice() {
                out.push_str("{\"type\":\"Polygon\",\"coordinates\":");
                push_polygon(&mut out, rings);
            } else {
                out.push_str("{\"type\":\"MultiPolygon\",\"coordinates\":");
                push_list(&mut out, polygons, |out, rings| push_polygon(out, rings));
            }
            None
        }
        RawShape::Circle { center, radius_m } => {
            out.push_str("{\"type\":\"Point\",\"coordinates\":");
            push_position(&mut out, center);
            Some(radius_m.to_string())
        }
    };
    out.push_str("},\"properties\":{");
    let radius = radius.as_deref().map(|radius| ("radius_m", radius));
    for (at, (name, value)) in radius.iter().chain(properties).enumerate() {
        if at > 0 {
            out.push(',');
        }
        json::push_string(&mut out, name);
        out.push(':');
        out.push_str(value);
    }
    out.push_str("}}");
    out
}

fn push_polygon(out: &mut String, rings: &[Vec<Position>]) {
    push_list(out, rings, |out, ring| push_list(out, ring, push_position));
}

fn push_position(out: &mut String, at: &Position) {
    out.push_str(&format!("[{},{}]", at.lon, at.lat));
}

fn push_list<T>(out: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

/// Writes a FeatureCollection, one Feature a line, each Feature's bytes as they are.
#[derive(Debug)]
pub struct CollectionWriter<W: Write> {
    out: W,
    count: u64,
}

impl<W: Write> CollectionWriter<W> {
    /// Begins a collection.
    #[must_use]
    pub const fn new(out: W) -> Self {
        Self { out, count: 0 }
    }

    /// Adds a Feature.
    ///
    /// # Errors
    /// Those of the output.
    pub fn add(&mut self, feature: &[u8]) -> io::Result<()> {
        let before: &[u8] = match self.count {
            0 => b"{\"type\":\"FeatureCollection\",\"features\":[\n",
            _ => b",\n",
        };
        self.count += 1;
        self.out.write_all(before)?;
        self.out.write_all(feature)
    }

    /// Ends the collection; hands back the output, flushed.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        let end: &[u8] = match self.count {
            0 => b"{\"type\":\"FeatureCollection\",\"features\":[]}\n",
            _ => b"\n]}\n",
        };
        self.out.write_all(end)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::codec::zone_change::{self, ZoneRules};
    use crate::geometry::ShapeRules;
    use crate::rejection::RejectionReason as Reason;
    use crate::zone::ZoneChange;

    fn stamped(
        id_property: Option<&str>,
        feature: &str,
        at: Option<i64>,
    ) -> Result<(String, String), Reason> {
        Stamp::new(id_property, 10_000)
            .apply(feature.as_bytes(), at.map(EventTime::clamped))
            .map(|(id, value)| (id.as_str().to_owned(), String::from_utf8(value).unwrap()))
            .map_err(|rejection| rejection.reason)
    }

    #[test]
    fn a_feature_is_stamped_and_its_other_bytes_stay() {
        for (id_property, at, before, id, after) in [
            (None, None, r#"{ "id":7 }"#, "7", r#"{ "id":7 }"#),
            (
                None,
                Some(5),
                r#"{"id":7, "properties" : { } }"#,
                "7",
                r#"{"id":7, "properties" : { "effective_at":5} }"#,
            ),
            (
                None,
                Some(5),
                r#"{"properties":{"zone_id":"a","x":1.0 },"id":null}"#,
                "a",
                r#"{"properties":{"zone_id":"a","x":1.0 ,"effective_at":5},"id":null}"#,
            ),
            (
                None,
                Some(-5),
                r#"{"id":"a","properties":{"effective_at" : "2024-01-01T00:00:00Z" ,"x":1}}"#,
                "a",
                r#"{"id":"a","properties":{"effective_at" : -5 ,"x":1}}"#,
            ),
            (
                None,
                Some(5),
                r#"{"id":"a","properties":null}"#,
                "a",
                r#"{"id":"a","properties":{"effective_at":5}}"#,
            ),
            (
                None,
                Some(5),
                r#"{"id":"a"}"#,
                "a",
                r#"{"id":"a","properties":{"effective_at":5}}"#,
            ),
            (
                Some("name"),
                Some(5),
                r#"{"id":1,"properties":{"name":"x\"y"}}"#,
                "x\"y",
                r#"{"id":"x\"y","properties":{"name":"x\"y","effective_at":5}}"#,
            ),
            (
                Some("n"),
                None,
                r#"{"properties":{"n":12}}"#,
                "12",
                r#"{"properties":{"n":12},"id":"12"}"#,
            ),
            (
                Some("n"),
                None,
                r#"{"id":12,"properties":{"n":"12"}}"#,
                "12",
                r#"{"id":12,"properties":{"n":"12"}}"#,
            ),
        ] {
            let got = stamped(id_property, before, at).unwrap();
            assert_eq!(got, (id.to_owned(), after.to_owned()), "{before}");
        }
    }

    #[test]
    fn a_feature_that_cannot_be_stamped_says_why() {
        for (id_property, feature, reason) in [
            (None, "{}", Reason::MissingField),
            (
                Some("n"),
                r#"{"id":1,"properties":{}}"#,
                Reason::MissingField,
            ),
            (
                Some("n"),
                r#"{"id":1,"properties":{"n":1.5}}"#,
                Reason::InvalidId,
            ),
            (None, r#"{"id":1,"id":1}"#, Reason::DuplicateKey),
            (None, r#"{"id":1,"properties":[]}"#, Reason::WrongType),
            (None, r#"{"id":1,}"#, Reason::NotJson),
            (None, "7", Reason::NotAnObject),
        ] {
            assert_eq!(
                stamped(id_property, feature, Some(1)).unwrap_err(),
                reason,
                "{feature}"
            );
        }
        let huge = format!("{{\"id\":\"{}\"}}", "x".repeat(10_000));
        assert_eq!(stamped(None, &huge, None).unwrap_err(), Reason::TooLarge);
    }

    #[test]
    fn a_removal_is_read_back() {
        let rules = ZoneRules::new(ShapeRules::default(), 10_000, &[]);
        for at in [None, EventTime::from_millis(-7)] {
            let value = removal(&ZoneId::new("a\"é"), at);
            let change =
                zone_change::decode(Some("a\"é".as_bytes()), Some(value.as_bytes()), &rules)
                    .unwrap();
            assert!(matches!(change.change, ZoneChange::Remove));
            assert_eq!(change.effective_at, at);
        }
    }

    #[test]
    fn a_written_feature_has_the_same_bits_when_it_is_read_back() {
        let odd = [
            0.1,
            -0.0,
            1e-300,
            97.743_060_987_654_32,
            f64::MIN_POSITIVE,
            180.0,
        ];
        let ring: Vec<Position> = odd
            .iter()
            .map(|&lon| Position {
                lon,
                lat: lon / 3.0,
            })
            .collect();
        let shape =
            RawShape::MultiPolygon(vec![vec![ring.clone(), ring.clone()], vec![ring.clone()]]);
        let text = feature(
            &ZoneId::new("a"),
            &shape,
            &[("n\"", "[1]"), ("effective_at", "5")],
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["properties"], json!({"n\"": [1], "effective_at": 5}));
        assert_eq!(value["geometry"]["type"], "MultiPolygon");
        for (position, read) in ring
            .iter()
            .zip(value["geometry"]["coordinates"][0][1].as_array().unwrap())
        {
            assert_eq!(read[0].as_f64().unwrap().to_bits(), position.lon.to_bits());
            assert_eq!(read[1].as_f64().unwrap().to_bits(), position.lat.to_bits());
        }
        let circle = RawShape::Circle {
            center: ring[0],
            radius_m: 12.5,
        };
        let value: Value =
            serde_json::from_str(&feature(&ZoneId::new("c"), &circle, &[("x", "1")])).unwrap();
        assert_eq!(value["properties"], json!({"radius_m": 12.5, "x": 1}));
        assert_eq!(
            value["geometry"],
            json!({"type": "Point", "coordinates": [0.1, 0.1 / 3.0]})
        );
    }

    #[test]
    fn a_collection_holds_the_features_as_they_are() {
        for features in [
            vec![],
            vec!["{ \"id\":1 }"],
            vec!["{}", "{\n}", "{\"id\":2}"],
        ] {
            let mut writer = CollectionWriter::new(Vec::new());
            for feature in &features {
                writer.add(feature.as_bytes()).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["type"], "FeatureCollection");
            assert_eq!(value["features"].as_array().unwrap().len(), features.len());
            let mut reader = crate::codec::features::FeatureReader::new(bytes.as_slice(), 1_000);
            for feature in features {
                let (_, read) = reader.next_feature().unwrap().unwrap();
                assert_eq!(read, feature.as_bytes());
            }
            assert!(reader.next_feature().unwrap().is_none());
        }
    }
}
