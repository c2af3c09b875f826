//! JSON pointers (RFC 6901), many at once: compiled to a tree of names, filled in one pass over a document.
//!
//! A [`Paths`] says which places are of interest; [`Paths::scan`] checks the whole document and notes where each of
//! them stands, and whether a member on the way to one is named twice. No allocation, recursion only as deep as the
//! longest pointer.

mod layout;

use std::fmt;
use std::ops::Range;

use crate::codec::json::{JsonError, JsonFault, Kind, RawString, Scanner};
use crate::rejection::{Rejection, RejectionReason};
pub use layout::Layouts;

/// The longest pointer, in names: bounds the recursion, and nothing deeper than 127 could be read anyway.
pub const NAMES_MAX: usize = 32;

/// A parsed pointer: the names on the way, unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// Why a text is no pointer that can be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PointerError {
    /// It does not begin with `/`.
    NoSlash,
    /// A `~` is not followed by `0` or `1`.
    Tilde,
    /// It has more than [`NAMES_MAX`] names.
    TooLong,
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("a JSON pointer begins with `/`"),
            Self::Tilde => {
                f.write_str("in a JSON pointer `~` is written `~0` and `/` in a name `~1`")
            }
            Self::TooLong => write!(f, "a JSON pointer of more than {NAMES_MAX} names"),
        }
    }
}

impl std::error::Error for PointerError {}

impl Pointer {
    /// Reads `/a/b~1c/0`.
    ///
    /// # Errors
    /// A [`PointerError`]; the empty pointer (the whole document) is one of them, as no field is the whole document.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let body = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        let names: Vec<String> = body
            .split('/')
            .map(unescape_name)
            .collect::<Result<_, _>>()?;
        if names.len() > NAMES_MAX {
            Err(PointerError::TooLong)
        } else {
            Ok(Self(names))
        }
    }

    /// The pointer made of these names, as they are.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        Self(names.iter().map(ToString::to_string).collect())
    }

    /// The names on the way.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

fn unescape_name(name: &str) -> Result<String, PointerError> {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '~') {
            (_, true) => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(PointerError::Tilde),
            },
            (c, false) => c,
        });
    }
    Ok(out)
}

/// Which place of a [`Paths`]: an index into the slots that a scan fills.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PathId(usize);

/// Where a value stands in the document, and what kind it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    start: u32,
    end: u32,
    /// The value's kind.
    pub kind: Kind,
}

impl Slot {
    /// The value's bytes.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The value as it stands in its document.
    #[must_use]
    pub fn text<'a>(&self, document: &'a str) -> &'a str {
        &document[self.range()]
    }

    /// The value as a string between its quotes; only where [`Kind::is_string`].
    #[must_use]
    pub fn string<'a>(&self, document: &'a str) -> Option<RawString<'a>> {
        let escaped = self.kind == Kind::EscapedString;
        let inside = self.start as usize + 1..self.end as usize - 1;
        self.kind.is_string().then(|| RawString {
            raw: &document[inside],
            escaped,
        })
    }
}

/// What a scan found beside the slots.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// What the document is.
    pub kind: Kind,
    /// The first member on the way to a place that is named a second time.
    pub duplicate: Option<PathId>,
    /// The document's last byte that is not space: of an object, the byte of its closing brace.
    pub close: usize,
    /// Of an object: whether it has no member.
    pub empty: bool,
}

#[derive(Clone, Debug)]
struct Node {
    /// The name that leads here from the parent.
    name: Box<str>,
    /// The name as an array index.
    index: Option<usize>,
    parent: usize,
    children: Vec<usize>,
    /// The lengths of the children's names, each a bit.
    child_lengths: u64,
}

const fn length_bit(len: usize) -> u64 {
    1 << if len < 63 { len } else { 63 }
}

/// The places of interest in a document.
#[derive(Clone, Debug)]
pub struct Paths {
    nodes: Vec<Node>,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new()
    }
}

impl Paths {
    /// None yet; the document itself always has the first slot.
    #[must_use]
    pub fn new() -> Self {
        let root = Node {
            name: "".into(),
            index: None,
            parent: 0,
            children: Vec::new(),
            child_lengths: 0,
        };
        Self { nodes: vec![root] }
    }

    /// Adds a place; the same place twice has one id.
    pub fn add(&mut self, pointer: &Pointer) -> PathId {
        let mut at = 0;
        for name in pointer.names() {
            let known = self.nodes[at]
                .children
                .iter()
                .find(|&&child| *self.nodes[child].name == **name);
            at = if let Some(&child) = known {
                child
            } else {
                let child = self.nodes.len();
                let index = array_index(name);
                let node = Node {
                    name: name.as_str().into(),
                    index,
                    parent: at,
                    children: Vec::new(),
                    child_lengths: 0,
                };
                self.nodes.push(node);
                self.nodes[at].children.push(child);
                self.nodes[at].child_lengths |= length_bit(name.len());
                child
            };
        }
        PathId(at)
    }

    /// How many slots a scan needs.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.nodes.len()
    }

    /// The slot of a place.
    #[must_use]
    pub fn slot(slots: &[Option<Slot>], id: PathId) -> Option<Slot> {
        slots[id.0]
    }

    /// The pointer of a place, for messages.
    #[must_use]
    pub fn pointer(&self, id: PathId) -> String {
        let mut text = String::new();
        let mut at = id.0;
        while at != 0 {
            let node = &self.nodes[at];
            text.insert_str(
                0,
                &format!("/{}", node.name.replace('~', "~0").replace('/', "~1")),
            );
            at = node.parent;
        }
        text
    }

    /// Checks the whole document and fills `slots` (all `None`, [`Self::slot_count`] of them at least).
    ///
    /// # Errors
    /// What is wrong with the document.
    ///
    /// # Panics
    /// If `slots` is too short, or the document longer than `u32::MAX`: callers cap it before.
    #[inline]
    pub fn scan(&self, text: &str, slots: &mut [Option<Slot>]) -> Result<Scanned, JsonError> {
        assert!(slots.len() >= self.nodes.len(), "every place has a slot");
        assert!(
            u32::try_from(text.len()).is_ok(),
            "documents are capped before they are scanned"
        );
        let mut walk = Walk {
            paths: self,
            text,
            scanner: Scanner::new(text),
            slots,
            duplicate: None,
        };
        walk.scanner.skip_space();
        let (kind, empty) = if walk.scanner.peek() == Some(b'{') {
            (Kind::Object, walk.object(0, 0)?)
        } else {
            (walk.scanner.skip_value(0)?, true)
        };
        let close = walk.scanner.at() - 1;
        walk.scanner.end()?;
        Ok(Scanned {
            kind,
            duplicate: walk.duplicate.map(PathId),
            close,
            empty,
        })
    }

    /// Scans a record's value: it must be an object, and no member on the way to a place may be named twice.
    ///
    /// # Errors
    /// What is wrong with the document, in the order `not_json`, `not_an_object`, `duplicate_key`.
    ///
    /// # Panics
    /// As [`Self::scan`].
    #[inline]
    pub fn scan_object(
        &self,
        text: &str,
        slots: &mut [Option<Slot>],
    ) -> Result<Scanned, Rejection> {
        let scanned = self.scan(text, slots)?;
        if scanned.kind != Kind::Object {
            return Err(Rejection::new(
                RejectionReason::NotAnObject,
                format!("the value is {}", scanned.kind.name()),
            ));
        }
        if let Some(twice) = scanned.duplicate {
            return Err(Rejection::new(
                RejectionReason::DuplicateKey,
                format!("`{}` is named twice", self.pointer(twice)),
            ));
        }
        Ok(scanned)
    }
}

/// RFC 6901, section 4: digits without a leading zero.
fn array_index(name: &str) -> Option<usize> {
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && (name == "0" || !name.starts_with('0'));
    if canonical { name.parse().ok() } else { None }
}

struct Walk<'p, 't, 's> {
    paths: &'p Paths,
    text: &'t str,
    scanner: Scanner<'t>,
    slots: &'s mut [Option<Slot>],
    duplicate: Option<usize>,
}

impl Walk<'_, '_, '_> {
    /// Passes an object of interest; returns whether it is empty.
    fn object(&mut self, node: usize, depth: u32) -> Result<bool, JsonError> {
        self.scanner.enter(depth)?;
        self.scanner.take(b'{');
        self.scanner.skip_space();
        if self.scanner.take(b'}') {
            return Ok(true);
        }
        loop {
            let start = self.scanner.at() + 1;
            let (escaped, end) = self.scanner.skip_key()?;
            match self.child_named(node, start..end - 1, escaped) {
                Some(child) if self.slots[child].is_some() => {
                    self.duplicate = self.duplicate.or(Some(child));
                    self.scanner.skip_value(depth + 1)?;
                }
                Some(child) => self.value(child, depth + 1)?,
                None => {
                    self.scanner.skip_value(depth + 1)?;
                }
            }
            self.scanner.skip_space();
            if self.scanner.take(b',') {
                self.scanner.skip_space();
            } else if self.scanner.take(b'}') {
                return Ok(false);
            } else {
                return self.scanner.error(JsonFault::CommaOrBrace);
            }
        }
    }

    #[inline]
    fn child_named(&self, node: usize, name: Range<usize>, escaped: bool) -> Option<usize> {
        let node = &self.paths.nodes[node];
        if escaped {
            let raw = RawString {
                raw: &self.text[name],
                escaped,
            };
            return node
                .children
                .iter()
                .copied()
                .find(|&child| raw.is(&self.paths.nodes[child].name));
        }
        // Most members of a record are of no interest, and their names' lengths alone tell.
        if node.child_lengths & length_bit(name.len()) == 0 {
            return None;
        }
        let name = &self.text.as_bytes()[name];
        node.children
            .iter()
            .copied()
            .find(|&child| self.paths.nodes[child].name.as_bytes() == name)
    }

    /// Passes an array that a pointer may go through.
    fn array(&mut self, node: usize, depth: u32) -> Result<(), JsonError> {
        self.scanner.enter(depth)?;
        self.scanner.take(b'[');
        self.scanner.skip_space();
        if self.scanner.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            let children = &self.paths.nodes[node].children;
            let child = children
                .iter()
                .copied()
                .find(|&child| self.paths.nodes[child].index == Some(index));
            match child {
                Some(child) => self.value(child, depth + 1)?,
                None => {
                    self.scanner.skip_value(depth + 1)?;
                }
            }
            self.scanner.skip_space();
            if self.scanner.take(b',') {
                self.scanner.skip_space();
            } else if self.scanner.take(b']') {
                break;
            } else {
                return self.scanner.error(JsonFault::CommaOrBracket);
            }
        }
        Ok(())
    }

    fn value(&mut self, node: usize, depth: u32) -> Result<(), JsonError> {
        let start = self.scanner.at() as u32;
        let inner = !self.paths.nodes[node].children.is_empty();
        let kind = match self.scanner.peek() {
            Some(b'{') if inner => {
                self.object(node, depth)?;
                Kind::Object
            }
            Some(b'[') if inner => {
                self.array(node, depth)?;
                Kind::Array
            }
            _ => self.scanner.skip_value(depth)?,
        };
        self.slots[node] = Some(Slot {
            start,
            end: self.scanner.at() as u32,
            kind,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn find(document: &str, pointer: &str) -> Option<String> {
        let mut paths = Paths::new();
        let id = paths.add(&Pointer::parse(pointer).unwrap());
        let mut slots = vec![None; paths.slot_count()];
        paths.scan(document, &mut slots).unwrap();
        Paths::slot(&slots, id).map(|slot| slot.text(document).to_owned())
    }

    #[test]
    fn pointers_are_read_as_rfc_6901_says() {
        let document =
            r#"{"foo":["bar",{"x":[[7,8]]}],"":0,"a/b":1,"m~n":8," ":9,"0":"zero","~1":3}"#;
        for (pointer, value) in [
            ("/foo/0", Some("\"bar\"")),
            ("/foo/1/x/0/1", Some("8")),
            ("/foo/2", None),
            ("/foo/00", None),
            ("/foo/-", None),
            ("/foo/bar", None),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/m~0n", Some("8")),
            ("/ ", Some("9")),
            ("/0", Some("\"zero\"")),
            ("/~01", Some("3")),
            ("/foo/0/x", None),
        ] {
            assert_eq!(find(document, pointer).as_deref(), value, "{pointer}");
            let theirs: Value = serde_json::from_str(document).unwrap();
            assert_eq!(
                theirs.pointer(pointer).is_some(),
                value.is_some(),
                "{pointer}"
            );
        }
    }

    #[test]
    fn texts_that_are_no_pointer_are_refused() {
        assert_eq!(Pointer::parse(""), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse("lat"), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse("/a~"), Err(PointerError::Tilde));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerError::Tilde));
        assert_eq!(
            Pointer::parse(&"/a".repeat(NAMES_MAX + 1)),
            Err(PointerError::TooLong)
        );
    }

    #[test]
    fn a_pointer_is_written_as_it_was_read() {
        let mut paths = Paths::new();
        for text in ["/a/b", "/a~1b/~0", "/a", "/x/0"] {
            let id = paths.add(&Pointer::parse(text).unwrap());
            assert_eq!(paths.pointer(id), text);
        }
    }

    #[test]
    fn a_member_on_the_way_that_is_named_twice_is_found() {
        let mut paths = Paths::new();
        paths.add(&Pointer::parse("/pos/lat").unwrap());
        let duplicate = |document: &str| {
            let mut slots = vec![None; paths.slot_count()];
            paths
                .scan(document, &mut slots)
                .unwrap()
                .duplicate
                .map(|id| paths.pointer(id))
        };
        assert_eq!(
            duplicate(r#"{"pos":{"lat":1},"pos":{}}"#).as_deref(),
            Some("/pos")
        );
        assert_eq!(
            duplicate(r#"{"pos":{"lat":1,"\u006cat":1}}"#).as_deref(),
            Some("/pos/lat")
        );
        assert_eq!(duplicate(r#"{"pos":{"x":1,"x":1},"lat":1,"lat":2}"#), None);
        assert_eq!(duplicate(r#"{"pos":[{"lat":1},{"lat":1}]}"#), None);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "0", "1", "a/b", "~", "", "é\n"]).prop_map(String::from)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn values_are_found_where_serde_json_finds_them(
            document in document(),
            ways in prop::collection::vec(prop::collection::vec(name(), 1..4), 1..6),
        ) {
            let text = serde_json::to_string_pretty(&document).unwrap();
            let mut paths = Paths::new();
            let ids: Vec<_> = ways
                .iter()
                .map(|way| paths.add(&Pointer::of(&way.iter().map(String::as_str).collect::<Vec<_>>())))
                .collect();
            let mut slots = vec![None; paths.slot_count()];
            let scanned = paths.scan(&text, &mut slots).unwrap();
            prop_assert_eq!(scanned.duplicate, None);
            for id in ids {
                let ours = Paths::slot(&slots, id)
                    .map(|slot| serde_json::from_str::<Value>(slot.text(&text)).unwrap());
                // A document that is an array is not walked: records are objects.
                let theirs = document.as_object().and_then(|_| document.pointer(&paths.pointer(id)));
                prop_assert_eq!(ours.as_ref(), theirs);
            }
        }
    }
}
