//! Reads telemetry for the witness: JSON into a small tree that keeps members named twice, then the configured
//! pointers. Shares nothing with the codec. Where the contract leaves a reading open (the very edge of the depth limit)
//! it says [`Reading::Unclear`] rather than accuse the daemon. No Kafka, no zones, no time rules.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};

use crate::telemetry::{Event, RecordTimestamp};
use crate::time::EventTime;

/// A JSON value as it was written: members in order, those named twice kept.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool,
    Integer(i64),
    /// Not an integer, or one beyond 64 bits.
    Number(f64),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Node::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Node::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what serde_json itself does beyond 64 bits"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Node::Number(value as f64), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Node::String(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Node::String(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Node::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::with_capacity(8);
        while let Some(Name(name)) = members.next_key()? {
            all.push((name, members.next_value()?));
        }
        Ok(Node::Object(all))
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

/// A member's name, borrowed where it has no escapes (serde's own `Cow` always copies).
pub(super) struct Name<'a>(pub(super) Cow<'a, str>);

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(NameVisitor)
    }
}

/// Where the telemetry's fields are: JSON pointers, split and unescaped.
#[derive(Clone, Debug)]
pub struct Pointers {
    id: Vec<String>,
    /// `None`: the Kafka timestamp.
    time: Option<Vec<String>>,
    lat: Vec<String>,
    lon: Vec<String>,
}

impl Pointers {
    /// The pointers as they stand in the configuration; a `time` of `record` is the Kafka timestamp.
    #[must_use]
    pub fn new(id: &str, time: &str, lat: &str, lon: &str) -> Self {
        let time = if time == "record" {
            None
        } else {
            Some(split(time))
        };
        Self {
            id: split(id),
            time,
            lat: split(lat),
            lon: split(lon),
        }
    }
}

/// RFC 6901: `~1` is `/`, `~0` is `~`.
fn split(pointer: &str) -> Vec<String> {
    pointer
        .strip_prefix('/')
        .map(|rest| {
            rest.split('/')
                .map(|part| part.replace("~1", "/").replace("~0", "~"))
                .collect()
        })
        .unwrap_or_default()
}

/// What the witness reads of a telemetry value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reading {
    /// An event: it must be enriched.
    Valid(Event),
    /// It must be refused.
    Invalid,
    /// The contract allows either.
    Unclear,
}

/// Reads a value with these pointers.
pub(super) fn read(value: Option<&[u8]>, at: RecordTimestamp, pointers: &Pointers) -> Reading {
    let Some(node) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
        return Reading::Invalid;
    };
    match serde_json::from_str::<Node<'_>>(node) {
        Ok(node @ Node::Object(_)) => read_fields(&node, at, pointers),
        Ok(_) => Reading::Invalid,
        // serde_json stops at its own limit; one level either side of 128 is not worth an accusation.
        Err(_) if (127..=129).contains(&depth(node)) => Reading::Unclear,
        Err(_) => Reading::Invalid,
    }
}

fn read_fields(node: &Node<'_>, at: RecordTimestamp, pointers: &Pointers) -> Reading {
    // The id is an entity's name and decides no answer; what the contract does not say of it is not judged.
    let id = find(node, &pointers.id);
    if matches!(id, Found::Twice) {
        return Reading::Invalid;
    }
    let time = match &pointers.time {
        None => at.instant(),
        Some(pointer) => match find(node, pointer) {
            Found::One(Node::Integer(millis)) => EventTime::from_millis(*millis),
            Found::One(Node::String(text)) => EventTime::parse_rfc3339(text),
            Found::One(Node::Number(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
                return Reading::Unclear; // 1.7e12 is an integer to some readers of RFC 8259
            }
            _ => None,
        },
    };
    let (lat, lon) = (
        number(&find(node, &pointers.lat)),
        number(&find(node, &pointers.lon)),
    );
    match (time, lat, lon) {
        (Some(time), Some(lat), Some(lon)) if lat.abs() <= 90.0 && lon.abs() <= 180.0 => match id {
            Found::None | Found::One(Node::String(_) | Node::Integer(_) | Node::Null) => {
                Reading::Valid(Event { time, lon, lat })
            }
            _ => Reading::Unclear,
        },
        _ => Reading::Invalid,
    }
}

enum Found<'n, 'a> {
    One(&'n Node<'a>),
    None,
    Twice,
}

#[expect(clippy::cast_precision_loss, reason = "JSON numbers are read as f64")]
fn number(found: &Found<'_, '_>) -> Option<f64> {
    match found {
        Found::One(Node::Integer(value)) => Some(*value as f64),
        Found::One(Node::Number(value)) => Some(*value),
        _ => None,
    }
}

fn find<'n, 'a>(node: &'n Node<'a>, pointer: &[String]) -> Found<'n, 'a> {
    let mut node = node;
    for part in pointer {
        node = match node {
            Node::Object(members) => {
                let mut hits = members.iter().filter(|(name, _)| name == part.as_str());
                match (hits.next(), hits.next()) {
                    (Some((_, hit)), None) => hit,
                    (Some(_), Some(_)) => return Found::Twice,
                    (None, _) => return Found::None,
                }
            }
            Node::Array(items) => {
                // RFC 6901: digits without a leading zero.
                let plain = part == "0" || !part.starts_with('0') && !part.starts_with('+');
                match part
                    .parse::<usize>()
                    .ok()
                    .filter(|_| plain)
                    .and_then(|i| items.get(i))
                {
                    Some(item) => item,
                    None => return Found::None,
                }
            }
            _ => return Found::None,
        };
    }
    Found::One(node)
}

/// The deepest nesting of arrays and objects.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> Reading {
        let pointers = Pointers::new("/id", "/ts", "/pos/lat", "/pos/lon");
        read(Some(text.as_bytes()), RecordTimestamp::Missing, &pointers)
    }

    #[test]
    fn fields_are_found_by_pointer_and_times_in_both_forms() {
        let event = Event {
            time: EventTime::clamped(5),
            lon: 2.5,
            lat: -1.0,
        };
        assert_eq!(
            reading(r#"{"id":"a","ts":5,"pos":{"lat":-1,"lon":2.5}}"#),
            Reading::Valid(event)
        );
        assert_eq!(
            reading(r#"{"id":"a","ts":"1970-01-01T00:00:00.005Z","pos":{"lat":-1,"lon":2.5}}"#),
            Reading::Valid(event)
        );
    }

    #[test]
    fn a_member_named_twice_on_a_pointers_way_is_invalid_and_elsewhere_is_not() {
        assert_eq!(
            reading(r#"{"id":"a","ts":5,"pos":{"lat":1,"lon":2},"\u0070os":{}}"#),
            Reading::Invalid
        );
        assert!(matches!(
            reading(r#"{"id":"a","x":1,"x":2,"ts":5,"pos":{"lat":1,"lon":2}}"#),
            Reading::Valid(_)
        ));
    }

    #[test]
    fn what_is_no_event_is_invalid() {
        for text in [
            "",
            "null",
            "[]",
            "7",
            "{",
            "{}",
            "{\"id\":\"a\"}",
            r#"{"id":"a","ts":5,"pos":{"lat":"1","lon":2}}"#,
            r#"{"id":"a","ts":5,"pos":{"lat":90.0000001,"lon":2}}"#,
            r#"{"id":"a","ts":5,"pos":{"lat":1,"lon":-180.5}}"#,
            r#"{"id":"a","ts":5.5,"pos":{"lat":1,"lon":2}}"#,
            r#"{"id":"a","ts":9999999999999999,"pos":{"lat":1,"lon":2}}"#,
            r#"{"id":"a","ts":5,"pos":{"lat":1,"lon":2}} x"#,
        ] {
            assert_eq!(reading(text), Reading::Invalid, "{text}");
        }
    }
}
