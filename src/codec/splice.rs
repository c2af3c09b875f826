//! Writes the enriched value: the original object's bytes with the zones of the event spliced in, every other byte
//! kept (DESIGN 3).
//!
//! The field goes before the object's last brace; where a member of that name exists, its value is replaced in place.
//! With properties configured, `<field>_properties` follows the same rule.

use std::ops::Range;

use crate::codec::json;
use crate::codec::pointer::{Scanned, Slot};
use crate::zone::Zone;

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
        let member = |name: &str| format!("{}:", json::string(name)).into_bytes().into_boxed_slice();
        let properties = with_properties.then(|| {
            let name = format!("{field}_properties");
            let member = member(&name);
            (name, member)
        });
        Self { ids: member(field), properties }
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
        Self { from: range.start as u32, to: range.end as u32 }
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
        zones: impl Iterator<Item = &'z Zone> + Clone,
        out: &mut Vec<u8>,
    ) {
        debug_assert!(
            zones.clone().is_sorted_by(|a, b| a.id < b.id),
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
fn write_ids<'z>(zones: impl Iterator<Item = &'z Zone>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, zone) in zones.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(zone.id_json.as_bytes());
    }
    out.push(b']');
}

/// `{"a":{"name":…}}`: a zone that has none of the properties is left out.
fn write_properties<'z>(zones: impl Iterator<Item = &'z Zone>, out: &mut Vec<u8>) {
    out.push(b'{');
    let with = zones.filter_map(|zone| zone.properties_json.as_ref().map(|json| (zone, json)));
    for (at, (zone, json)) in with.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(zone.id_json.as_bytes());
        out.push(b':');
        out.extend_from_slice(json.as_bytes());
    }
    out.push(b'}');
}
