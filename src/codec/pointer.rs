//! JSON pointers (RFC 6901), many at once: compiled to a tree of names, filled in one pass over a document.
//!
//! A [`Paths`] says which places are of interest; [`Paths::scan`] checks the whole document and notes where each of
//! them stands, and whether a member on the way to one is named twice. No allocation, recursion only as deep as the
//! longest pointer.

use std::fmt;

use crate::codec::json::{JsonError, JsonFault, Kind, RawString, Scanner};

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
            Self::Tilde => f.write_str("in a JSON pointer `~` is written `~0` and `/` in a name `~1`"),
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
        let names: Vec<String> = body.split('/').map(unescape_name).collect::<Result<_, _>>()?;
        if names.len() > NAMES_MAX { Err(PointerError::TooLong) } else { Ok(Self(names)) }
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
    pub const fn range(&self) -> std::ops::Range<usize> {
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
        self.kind.is_string().then(|| RawString { raw: &document[inside], escaped })
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
        let root = Node { name: "".into(), index: None, parent: 0, children: Vec::new() };
        Self { nodes: vec![root] }
    }

    /// Adds a place; the same place twice has one id.
    pub fn add(&mut self, pointer: &Pointer) -> PathId {
        let mut at = 0;
        for name in pointer.names() {
            let known = self.nodes[at].children.iter().find(|&&child| *self.nodes[child].name == **name);
            at = if let Some(&child) = known {
                child
            } else {
                let child = self.nodes.len();
                let index = array_index(name);
                let node =
                    Node { name: name.as_str().into(), index, parent: at, children: Vec::new() };
                self.nodes.push(node);
                self.nodes[at].children.push(child);
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
            text.insert_str(0, &format!("/{}", node.name.replace('~', "~0").replace('/', "~1")));
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
        assert!(u32::try_from(text.len()).is_ok(), "documents are capped before they are scanned");
        let mut walk = Walk { paths: self, scanner: Scanner::new(text), slots, duplicate: None };
        walk.scanner.skip_space();
        let (kind, empty) = if walk.scanner.peek() == Some(b'{') {
            (Kind::Object, walk.object(0, 0)?)
        } else {
            (walk.scanner.skip_value(0)?, true)
        };
        let close = walk.scanner.at() - 1;
        walk.scanner.end()?;
        Ok(Scanned { kind, duplicate: walk.duplicate.map(PathId), close, empty })
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
            let key = self.scanner.key()?;
            match self.child_named(node, key) {
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
                return self.scanner.error(JsonFault::Expected("`,` or `}`"));
            }
        }
    }

    #[inline]
    fn child_named(&self, node: usize, key: RawString<'_>) -> Option<usize> {
        let children = &self.paths.nodes[node].children;
        children.iter().copied().find(|&child| key.is(&self.paths.nodes[child].name))
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
            let child =
                children.iter().copied().find(|&child| self.paths.nodes[child].index == Some(index));
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
                return self.scanner.error(JsonFault::Expected("`,` or `]`"));
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
        self.slots[node] = Some(Slot { start, end: self.scanner.at() as u32, kind });
        Ok(())
    }
}
