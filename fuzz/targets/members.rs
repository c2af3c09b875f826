//! The members of a JSON object as serde_json reads them, in order, those named twice kept: the other reading that the
//! targets hold ours against.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object's members: name, and the value as it was written.
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = map.next_entry()? {
            all.push(member);
        }
        Ok(Members(all))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

impl<'a> Members<'a> {
    /// The members of a document that serde_json accepts; `None` where that is no object.
    pub fn of(document: &'a str) -> Option<Self> {
        serde_json::from_str(document).ok()
    }

    /// How many have this name.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(known, _)| known == name).count()
    }

    /// The value of the first with this name.
    pub fn first(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.get())
    }

    /// The first with this name as a value.
    pub fn value(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.first(name)?).ok()
    }

    /// Where the value of the first with this name stands in the document.
    pub fn range(&self, name: &str, document: &str) -> Option<Range<usize>> {
        let value = self.first(name)?;
        let start = value.as_ptr() as usize - document.as_ptr() as usize;
        Some(start..start + value.len())
    }
}
