//! Writes the enriched value: the original object's bytes with the zones of the event spliced in, every other byte
//! kept (DESIGN 3).
//!
//! The field goes before the object's last brace; where a member of that name exists, its value is replaced in place.
//! With properties configured, `<field>_properties` follows the same rule.

use std::ops::Range;

use crate::codec::json;
use crate::codec::pointer::{Scanned, Slot};
use crate::zone::ZoneText;

/// The names of the enriched members, ready to be written.
#[derive(Clone, Debug)]
pub struct FieldNames {
    /// `"zones":`
    ids: Box<[u8]>,
    /// The name `zones_properties`, and `"zones_properties":`.
    properties: Option<(String, Box<[u8]>)>,
}

impl FieldNames {
    /// The names for this configured field.
    #[must_use]
    pub fn new(field: &str, with_properties: bool) -> Self {
        let member = |name: &str| {
            format!("{}:", json::string(name))
                .into_bytes()
                .into_boxed_slice()
        };
        let properties = with_properties.then(|| {
            let name = format!("{field}_properties");
            let member = member(&name);
            (name, member)
        });
        Self {
            ids: member(field),
            properties,
        }
    }

    /// Whether the properties' member is written.
    #[must_use]
    pub fn with_properties(&self) -> bool {
        self.properties.is_some()
    }

    /// The name of the properties' member, where they are added.
    #[must_use]
    pub fn properties_name(&self) -> Option<String> {
        self.properties.as_ref().map(|(name, _)| name.clone())
    }
}

/// Bytes `[from, to)` of a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Span {
    from: u32,
    to: u32,
}

impl Span {
    fn of(range: &Range<usize>) -> Self {
        Self {
            from: range.start as u32,
            to: range.end as u32,
        }
    }
}

/// Where the enriched members go in one value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The byte of the object's closing brace.
    close: u32,
    /// Whether the object has no member yet.
    empty: bool,
    /// The value of the existing field.
    ids: Option<Span>,
    /// The value of the existing properties member.
    properties: Option<Span>,
}

impl Splice {
    /// The splice of a scanned object with these members already in it.
    #[must_use]
    pub(crate) fn new(scanned: &Scanned, ids: Option<Slot>, properties: Option<Slot>) -> Self {
        let span = |slot: Slot| Span::of(&slot.range());
        Self {
            close: scanned.close as u32,
            empty: scanned.empty,
            ids: ids.map(span),
            properties: properties.map(span),
        }
    }

    /// Writes the enriched value to `out`, which is cleared before.
    ///
    /// `value` is the one this splice was decoded from; `zones` ascend by id (code points), each once.
    pub fn write<'z>(
        &self,
        value: &[u8],
        names: &FieldNames,
        zones: impl Iterator<Item = ZoneText<'z>> + Clone,
        out: &mut Vec<u8>,
    ) {
        let id = |zone: &ZoneText<'z>| {
            let id = std::str::from_utf8(zone.id_json).expect("JSON is UTF-8");
            json::unescape(&id[1..id.len() - 1])
        };
        debug_assert!(
            zones.clone().is_sorted_by(|a, b| id(a).lt(id(b))),
            "zones come sorted by code point, each once"
        );
        out.clear();
        out.reserve(value.len() + 64);
        let mut copied = 0;
        let mut replace = |span: Span, out: &mut Vec<u8>, write: &mut dyn FnMut(&mut Vec<u8>)| {
            out.extend_from_slice(&value[copied..span.from as usize]);
            write(out);
            copied = span.to as usize;
        };
        let mut ids = |out: &mut Vec<u8>| write_ids(zones.clone(), out);
        let mut properties = |out: &mut Vec<u8>| write_properties(zones.clone(), out);
        match (self.ids, self.properties) {
            (Some(at), Some(then)) if at.from < then.from => {
                replace(at, out, &mut ids);
                replace(then, out, &mut properties);
            }
            (Some(then), Some(at)) => {
                replace(at, out, &mut properties);
                replace(then, out, &mut ids);
            }
            (Some(at), None) => replace(at, out, &mut ids),
            (None, Some(at)) => replace(at, out, &mut properties),
            (None, None) => {}
        }
        let close = self.close as usize;
        out.extend_from_slice(&value[copied..close]);
        let mut first = self.empty;
        let mut insert = |member: &[u8], out: &mut Vec<u8>| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(member);
        };
        if self.ids.is_none() {
            insert(&names.ids, out);
            ids(out);
        }
        if let (None, Some((_, member))) = (self.properties, &names.properties) {
            insert(member, out);
            properties(out);
        }
        out.extend_from_slice(&value[close..]);
    }
}

/// `["a","b"]`
fn write_ids<'z>(zones: impl Iterator<Item = ZoneText<'z>>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, zone) in zones.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(zone.id_json);
    }
    out.push(b']');
}

/// `{"a":{"name":…}}`: a zone that has none of the properties is left out.
fn write_properties<'z>(zones: impl Iterator<Item = ZoneText<'z>>, out: &mut Vec<u8>) {
    out.push(b'{');
    let with = zones.filter_map(|zone| zone.properties_json.map(|json| (zone, json)));
    for (at, (zone, json)) in with.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(zone.id_json);
        out.push(b':');
        out.extend_from_slice(json.as_bytes());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::codec::telemetry::{FieldRules, Fields};
    use crate::codec::zone_change::{self, ZoneRules};
    use crate::geometry::ShapeRules;
    use crate::telemetry::RecordTimestamp;
    use crate::zone::{Zone, ZoneChange};
    use std::sync::Arc;

    /// A zone with this id, carrying `name` and `n` where they are in `properties` (the inside of a JSON object).
    fn zone(id: &str, properties: &str) -> Arc<Zone> {
        let carried = ["name".to_owned(), "n".to_owned()];
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &carried);
        let feature = format!(
            r#"{{"type":"Feature","id":{},"properties":{{{properties}}},"geometry":{{"type":"Polygon",
            "coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}}}"#,
            json::string(id)
        );
        let change = zone_change::decode(Some(id.as_bytes()), Some(feature.as_bytes()), &rules);
        match change.unwrap().change {
            ZoneChange::Upsert(zone) => zone,
            ZoneChange::Remove => panic!("an upsert was encoded"),
        }
    }

    fn enrich(rules: &FieldRules<'_>, value: &str, zones: &[Arc<Zone>]) -> String {
        let fields = Fields::new(rules).unwrap();
        let decoded = fields
            .decode(Some(value.as_bytes()), RecordTimestamp::Missing)
            .unwrap();
        let mut out = b"what was there before".to_vec();
        fields.splice(
            value.as_bytes(),
            &decoded.splice,
            zones.iter().map(|zone| zone.text()),
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    fn plain(value: &str, zones: &[Arc<Zone>]) -> String {
        enrich(&FieldRules::default(), value, zones)
    }

    fn with_properties(value: &str, zones: &[Arc<Zone>]) -> String {
        enrich(
            &FieldRules {
                with_properties: true,
                ..FieldRules::default()
            },
            value,
            zones,
        )
    }

    #[test]
    fn the_field_goes_before_the_last_brace_and_all_else_stays() {
        let zones = [zone("a", ""), zone("b\"c", "")];
        assert_eq!(
            plain(r#"{"ts":1,"lat":1.50,"lon":2}"#, &zones),
            r#"{"ts":1,"lat":1.50,"lon":2,"zones":["a","b\"c"]}"#
        );
        assert_eq!(
            plain(
                "\t{ \"ts\" : 1e0,\n\"lat\":1,\"lon\":2 ,\"x\":{\"y\":[{}]} } \n",
                &zones[..1]
            ),
            "\t{ \"ts\" : 1e0,\n\"lat\":1,\"lon\":2 ,\"x\":{\"y\":[{}]} ,\"zones\":[\"a\"]} \n"
        );
        assert_eq!(
            plain(r#"{"ts":1,"lat":1,"lon":2}"#, &[]),
            r#"{"ts":1,"lat":1,"lon":2,"zones":[]}"#
        );
    }

    #[test]
    fn an_existing_field_is_replaced_in_place_also_under_an_escaped_name() {
        let zones = [zone("a", "")];
        assert_eq!(
            plain(
                r#"{"ts":1, "zones" : {"old":[1,2]} ,"lat":1,"lon":2}"#,
                &zones
            ),
            r#"{"ts":1, "zones" : ["a"] ,"lat":1,"lon":2}"#
        );
        assert_eq!(
            plain(r#"{"z\u006fnes":null,"ts":1,"lat":1,"lon":2}"#, &zones),
            r#"{"z\u006fnes":["a"],"ts":1,"lat":1,"lon":2}"#
        );
        assert_eq!(
            plain(r#"{"in":{"zones":1},"ts":1,"lat":1,"lon":2}"#, &zones),
            r#"{"in":{"zones":1},"ts":1,"lat":1,"lon":2,"zones":["a"]}"#
        );
    }

    #[test]
    fn properties_follow_the_ids_with_their_bytes_as_in_the_zone_record() {
        let zones = [
            zone("a", r#""name":"Caf\u00e9", "n":1.0e1,"x":0"#),
            zone("b", r#""x":1"#),
            zone("c", r#""n":{ "deep": [ 1 ] },"name":null"#),
        ];
        assert_eq!(
            with_properties(r#"{"ts":1,"lat":1,"lon":2}"#, &zones),
            concat!(
                r#"{"ts":1,"lat":1,"lon":2,"zones":["a","b","c"],"zones_properties":"#,
                r#"{"a":{"name":"Caf\u00e9","n":1.0e1},"c":{"name":null,"n":{ "deep": [ 1 ] }}}}"#
            )
        );
    }

    #[test]
    fn existing_members_are_replaced_each_where_it_stands() {
        let zones = [zone("a", r#""n":1"#)];
        let (ids, properties) = (r#""zones":["a"]"#, r#""zones_properties":{"a":{"n":1}}"#);
        for (before, after) in [
            (
                r#""zones":0,"zones_properties":0,"#,
                format!("{ids},{properties},"),
            ),
            (
                r#""zones_properties":0,"zones":0,"#,
                format!("{properties},{ids},"),
            ),
        ] {
            let rest = r#""ts":1,"lat":1,"lon":2}"#;
            let value = format!("{{{before}{rest}");
            assert_eq!(with_properties(&value, &zones), format!("{{{after}{rest}"));
        }
        assert_eq!(
            with_properties(r#"{"zones_properties":0,"ts":1,"lat":1,"lon":2}"#, &zones),
            format!("{{{properties},\"ts\":1,\"lat\":1,\"lon\":2,{ids}}}")
        );
        assert_eq!(
            with_properties(r#"{"zones":0,"ts":1,"lat":1,"lon":2}"#, &zones),
            format!("{{{ids},\"ts\":1,\"lat\":1,\"lon\":2,{properties}}}")
        );
        assert_eq!(
            plain(r#"{"zones_properties":0,"ts":1,"lat":1,"lon":2}"#, &zones),
            format!("{{\"zones_properties\":0,\"ts\":1,\"lat\":1,\"lon\":2,{ids}}}"),
            "without properties configured it is a member like any other"
        );
    }

    #[test]
    fn an_empty_object_gets_no_comma() {
        let names = FieldNames::new("zones", true);
        for (value, expected) in [
            ("{}", r#"{"zones":[],"zones_properties":{}}"#),
            (" { \n} ", " { \n\"zones\":[],\"zones_properties\":{}} "),
        ] {
            let mut slots = [None; 1];
            let scanned = crate::codec::pointer::Paths::new()
                .scan(value, &mut slots)
                .unwrap();
            let mut out = Vec::new();
            let splice = Splice::new(&scanned, None, None);
            splice.write(value.as_bytes(), &names, std::iter::empty(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_field_name_is_escaped() {
        let rules = FieldRules {
            field: "in \"zones\"",
            ..FieldRules::default()
        };
        assert_eq!(
            enrich(&rules, r#"{"ts":1,"lat":1,"lon":2}"#, &[]),
            r#"{"ts":1,"lat":1,"lon":2,"in \"zones\"":[]}"#
        );
    }

    fn ids() -> impl Strategy<Value = Vec<String>> {
        prop::collection::btree_set("[a-zA-Z0-9\"\\\\\né😀]{1,6}", 0..5)
            .prop_map(|ids| ids.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 500,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_enriched_value_is_the_original_with_the_field_in_it(
            others in prop::collection::vec(("[a-z\"é]{1,4}", any::<i32>()), 0..5),
            old in prop::option::of((any::<prop::sample::Index>(), "[a-z]{0,5}")),
            ids in ids(),
            pretty in any::<bool>(),
        ) {
            let mut object = Map::new();
            for (name, value) in [("ts", 1), ("lat", 2), ("lon", 3)] {
                object.insert(name.to_owned(), value.into());
            }
            object.extend(others.into_iter().filter(|(name, _)| name != "id").map(|(n, v)| (n, v.into())));
            if let Some((at, text)) = &old {
                object.shift_insert(at.index(object.len() + 1), "zones".to_owned(), text.as_str().into());
            }
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let value = write(&object).unwrap();
            let zones: Vec<_> = ids.iter().map(|id| zone(id, "")).collect();
            let enriched = plain(&value, &zones);

            // As values: the original and the field.
            object.insert("zones".to_owned(), ids.clone().into());
            let parsed: Value = serde_json::from_str(&enriched).unwrap();
            prop_assert_eq!(parsed, Value::Object(object));

            // As bytes: what is outside the field stayed.
            let written = serde_json::to_string(&ids).unwrap();
            let back = match &old {
                Some((_, text)) => enriched.replacen(
                    &written, &serde_json::to_string(text).unwrap(), 1),
                None => enriched.replacen(&format!(",\"zones\":{written}"), "", 1),
            };
            prop_assert_eq!(back, value);
        }
    }
}
