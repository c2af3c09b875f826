//! Judges the bytes of an enriched value against the original: the zones where they must stand and every other byte
//! as it was (DESIGN 3). It never builds the value; it walks the one it was given.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::Name;
use super::shape::Covers;
use super::timeline::Hit;

/// Names of the members that enrichment adds.
#[derive(Clone, Debug)]
pub(super) struct Members {
    field: String,
    /// Only where zone properties are configured.
    properties: Option<String>,
}

/// What is wrong with a value.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    /// A byte that must be as in the original, or the place of the new member.
    Bytes { at: usize },
    /// The zones are no array of strings, or not ascending and each once.
    Form,
    /// A zone too many (`found`) or too few.
    Zone { id: String, found: bool },
    /// The zone properties are not those of the zones.
    Properties,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes { at } => write!(f, "byte {at} of the value is not what splicing gives"),
            Self::Form => f.write_str("the zones are not an array of ids, ascending, each once"),
            Self::Zone { id, found: true } => write!(f, "zone `{id}` is too many"),
            Self::Zone { id, found: false } => write!(f, "zone `{id}` is missing"),
            Self::Properties => f.write_str("the zone properties differ"),
        }
    }
}

/// The members of an object in order, values as written.
pub(super) struct RawMembers<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

struct RawMembersVisitor;

impl<'de> Visitor<'de> for RawMembersVisitor {
    type Value = RawMembers<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Name(name)) = members.next_key()? {
            all.push((name, members.next_value()?));
        }
        Ok(RawMembers(all))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(RawMembersVisitor)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Ids,
    Properties,
}

impl Members {
    pub(super) fn new(field: &str, with_properties: bool) -> Self {
        let properties = with_properties.then(|| format!("{field}_properties"));
        Self {
            field: field.to_owned(),
            properties,
        }
    }

    /// Whether the original names one of the members twice, which refuses it.
    pub(super) fn named_twice(&self, original: &[u8]) -> bool {
        if !self.may_be_in(original) {
            return false;
        }
        let Ok(RawMembers(members)) = serde_json::from_slice(original) else {
            return false;
        };
        let count = |name: &str| members.iter().filter(|(member, _)| member == name).count();
        count(&self.field) > 1
            || self
                .properties
                .as_deref()
                .is_some_and(|name| count(name) > 1)
    }

    /// A cheap no: the name stands nowhere, not even escaped. (`zones_properties` holds `zones`.)
    fn may_be_in(&self, original: &[u8]) -> bool {
        memchr::memchr(b'\\', original).is_some()
            || memchr::memmem::find(original, self.field.as_bytes()).is_some()
    }

    /// The spans of the original that are replaced, in order; an empty one where a member is put in.
    fn spans(&self, original: &[u8]) -> Vec<(usize, usize, Part)> {
        let close = memchr::memrchr(b'}', original).unwrap_or(original.len());
        let mut ids = (close, close, Part::Ids);
        let mut properties = self
            .properties
            .as_ref()
            .map(|name| (name, (close, close, Part::Properties)));
        if self.may_be_in(original)
            && let Ok(RawMembers(members)) = serde_json::from_slice(original)
        {
            let base = original.as_ptr().addr();
            for (name, value) in members {
                let from = value.get().as_ptr().addr() - base;
                let to = from + value.get().len();
                if name == self.field {
                    ids = (from, to, Part::Ids);
                } else if let Some((wanted, span)) = &mut properties
                    && name == wanted.as_str()
                {
                    *span = (from, to, Part::Properties);
                }
            }
        }
        let mut spans = vec![ids];
        spans.extend(properties.map(|(_, span)| span));
        spans.sort_by_key(|&(from, _, part)| (from, part == Part::Properties));
        spans
    }

    /// Judges an enriched value; gives the ids it holds.
    pub(super) fn judge<'e>(
        &self,
        original: &[u8],
        enriched: &'e [u8],
        hits: &[Hit<'_>],
    ) -> Result<Vec<Cow<'e, str>>, Wrong> {
        let close = memchr::memrchr(b'}', original).unwrap_or(original.len());
        let mut first = original[..close].trim_ascii_end().ends_with(b"{")
            && original.trim_ascii_start().starts_with(b"{")
            && original[..close].trim_ascii().len() == 1;
        let mut walk = Walk { enriched, at: 0 };
        let (mut copied, mut ids, mut properties) = (0, Vec::new(), None);
        for (from, to, part) in self.spans(original) {
            walk.expect(&original[copied..from])?;
            copied = to;
            if from == to {
                if !std::mem::take(&mut first) {
                    walk.expect(b",")?;
                }
                let name = match part {
                    Part::Ids => &self.field,
                    Part::Properties => self.properties.as_ref().expect("only where configured"),
                };
                let mut member = serde_json::to_string(name).expect("a string is JSON");
                member.push(':');
                walk.expect(member.as_bytes())?;
            }
            match part {
                Part::Ids => ids = walk.ids()?,
                Part::Properties => properties = Some(walk.raw()?),
            }
        }
        walk.expect(&original[copied..])?;
        if walk.at != enriched.len() {
            return Err(Wrong::Bytes { at: walk.at });
        }
        judge_ids(&ids, hits)?;
        if let Some(properties) = properties
            && properties != properties_of(&ids, hits)
        {
            return Err(Wrong::Properties);
        }
        Ok(ids)
    }
}

fn judge_ids(ids: &[Cow<'_, str>], hits: &[Hit<'_>]) -> Result<(), Wrong> {
    if !ids.is_sorted_by(|a, b| a < b) {
        return Err(Wrong::Form);
    }
    for hit in hits.iter().filter(|hit| hit.covers == Covers::Yes) {
        if !ids.iter().any(|id| id == hit.zone) {
            return Err(Wrong::Zone {
                id: hit.zone.to_owned(),
                found: false,
            });
        }
    }
    for id in ids {
        if !hits.iter().any(|hit| hit.zone == id) {
            return Err(Wrong::Zone {
                id: id.clone().into_owned(),
                found: true,
            });
        }
    }
    Ok(())
}

fn properties_of(ids: &[Cow<'_, str>], hits: &[Hit<'_>]) -> String {
    let mut out = String::from("{");
    for hit in hits
        .iter()
        .filter(|hit| ids.iter().any(|id| id == hit.zone))
    {
        if let Some(properties) = hit.properties {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&serde_json::to_string(hit.zone).expect("a string is JSON"));
            out.push(':');
            out.push_str(properties);
        }
    }
    out.push('}');
    out
}

struct Walk<'e> {
    enriched: &'e [u8],
    at: usize,
}

/// An id in the output, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Ids<'a>(#[serde(borrow)] Vec<Name<'a>>);

impl<'e> Walk<'e> {
    fn expect(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let rest = &self.enriched[self.at..];
        if rest.starts_with(bytes) {
            self.at += bytes.len();
            return Ok(());
        }
        let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        Err(Wrong::Bytes { at: self.at + same })
    }

    fn ids(&mut self) -> Result<Vec<Cow<'e, str>>, Wrong> {
        let rest = &self.enriched[self.at..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Ids<'e>>();
        let Some(Ok(Ids(names))) = values.next() else {
            return Err(Wrong::Form);
        };
        self.at += values.byte_offset();
        Ok(names.into_iter().map(|Name(name)| name).collect())
    }

    fn raw(&mut self) -> Result<&'e str, Wrong> {
        let rest = &self.enriched[self.at..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        let Some(Ok(raw)) = values.next() else {
            return Err(Wrong::Properties);
        };
        self.at += values.byte_offset();
        Ok(raw.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit<'a>(zone: &'a str, properties: Option<&'a str>) -> Hit<'a> {
        Hit {
            zone,
            covers: Covers::Yes,
            properties,
        }
    }

    fn judge(original: &str, enriched: &str) -> Result<(), Wrong> {
        let hits = [hit("a", None), hit("b", None)];
        Members::new("zones", false)
            .judge(original.as_bytes(), enriched.as_bytes(), &hits)
            .map(drop)
    }

    #[test]
    fn a_right_splice_passes() {
        for (original, enriched) in [
            (r#"{"x":1}"#, r#"{"x":1,"zones":["a","b"]}"#),
            (" {\"x\":1 }\n", " {\"x\":1 ,\"zones\":[\"a\",\"b\"]}\n"),
            ("{ }", r#"{ "zones":["a","b"]}"#),
            (r#"{"zones":7,"x":1}"#, r#"{"zones":["a","b"],"x":1}"#),
            (
                r#"{"z\u006fnes": {} ,"x":1}"#,
                r#"{"z\u006fnes": ["a","b"] ,"x":1}"#,
            ),
            (
                r#"{"x":{"zones":1}}"#,
                r#"{"x":{"zones":1},"zones":["a","b"]}"#,
            ),
        ] {
            assert_eq!(judge(original, enriched), Ok(()), "{original}");
        }
    }

    #[test]
    fn every_wrong_value_is_told() {
        let original = r#"{"x":1}"#;
        let missing = Wrong::Zone {
            id: "b".into(),
            found: false,
        };
        assert_eq!(judge(original, r#"{"x":1,"zones":["a"]}"#), Err(missing));
        let extra = Wrong::Zone {
            id: "c".into(),
            found: true,
        };
        assert_eq!(
            judge(original, r#"{"x":1,"zones":["a","b","c"]}"#),
            Err(extra)
        );
        assert_eq!(
            judge(original, r#"{"x":1,"zones":["b","a"]}"#),
            Err(Wrong::Form)
        );
        assert_eq!(
            judge(original, r#"{"x":1,"zones":["a","a","b"]}"#),
            Err(Wrong::Form)
        );
        assert_eq!(
            judge(original, r#"{"x":2,"zones":["a","b"]}"#),
            Err(Wrong::Bytes { at: 5 })
        );
        assert_eq!(
            judge(original, r#"{"x":1,"zones":["a","b"]} "#),
            Err(Wrong::Bytes { at: 25 })
        );
        assert_eq!(judge(original, original), Err(Wrong::Bytes { at: 6 }));
    }

    #[test]
    fn properties_follow_the_ids() {
        let hits = [hit("a", Some(r#"{"name":"A"}"#)), hit("b", None)];
        let members = Members::new("zones", true);
        let judge = |enriched: &str| members.judge(b"{}", enriched.as_bytes(), &hits).map(drop);
        let right = r#"{"zones":["a","b"],"zones_properties":{"a":{"name":"A"}}}"#;
        assert_eq!(judge(right), Ok(()));
        assert_eq!(judge(&right.replace('A', "B")), Err(Wrong::Properties));
    }
}
