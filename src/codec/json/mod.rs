//! A strict one-pass JSON scanner: it accepts and refuses exactly what `serde_json` does when it reads a `Value`
//! (RFC 8259, UTF-8, paired surrogates, 127 open containers, numbers that a 64-bit float holds), and finds where
//! values stand instead of building them.
//!
//! It allocates nothing and does not recurse: a document nested 100,000 deep is a [`JsonFault::TooDeep`], not a
//! stack overflow. What is absent: reading values (see [`unescape`] and [`string`]).

mod fault;
mod number;
mod text;

use wide::u8x16;

pub use self::fault::{JsonError, JsonFault};
pub(crate) use self::number::number;
use self::number::{decimal_at, number_at, short_integer_at};
use self::text::hex4;
pub use self::text::{RawString, push_string, string, unescape};

/// The number of containers that must not be open at once: `serde_json`'s recursion limit, which refuses the 128th.
pub const DEPTH_LIMIT: u32 = 128;

/// What kind of value stands at a place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number without fraction and exponent.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// A string that stands as it is between its quotes.
    String,
    /// A string with at least one escape.
    EscapedString,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Kind {
    /// The kind's name for a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::False | Self::True => "a boolean",
            Self::Integer => "an integer",
            Self::Float => "a number with a fraction or an exponent",
            Self::String | Self::EscapedString => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }

    /// Whether it is a number of either form.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Float)
    }

    /// Whether it is a string of either form.
    #[must_use]
    pub const fn is_string(self) -> bool {
        matches!(self, Self::String | Self::EscapedString)
    }
}

/// Checks that bytes are UTF-8, as JSON must be.
///
/// # Errors
/// [`JsonFault::Utf8`] at the first byte that is not.
pub fn utf8(bytes: &[u8]) -> Result<&str, JsonError> {
    simdutf8::compat::from_utf8(bytes)
        .map_err(|error| JsonError::new(JsonFault::Utf8, error.valid_up_to()))
}

/// A place in a document; it moves forward over checked values only.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of a document.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// A scanner at a byte of a checked document, which must be a character's first.
    #[must_use]
    pub(crate) const fn standing_at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// The byte it stands at.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text from here to where `later` stands.
    #[must_use]
    pub fn until(&self, later: &Self) -> &'a str {
        &self.text[self.at..later.at]
    }

    /// The byte it stands at, if any.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes the byte it stands at if it is `byte`.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// Passes spaces, tabs, line feeds and carriage returns.
    #[inline]
    pub fn skip_space(&mut self) {
        // One comparison where there is none, which is the usual case.
        while let Some(byte) = self.peek()
            && byte <= b' '
            && matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
        {
            self.at += 1;
        }
    }

    /// An error at this place.
    pub(crate) const fn error<T>(&self, fault: JsonFault) -> Result<T, JsonError> {
        Err(JsonError::new(fault, self.at))
    }

    /// Passes and reads a number of a checked document, where that is a matter of one division: few digits and no exponent.
    ///
    /// The digits without their point are a whole number below 2^53 and the divisor a power of ten below 10^23. A double holds
    /// both as they are, so their quotient is the number rounded once (Clinger 1990), as `str::parse` gives it.
    #[inline]
    pub(crate) fn take_decimal(&mut self) -> Option<f64> {
        let (number, end) = decimal_at(self.text.as_bytes(), self.at)?;
        self.at = end;
        Some(number)
    }

    /// Passes and reads an integer of a checked document that is a matter of sixteen bytes.
    #[inline]
    pub(crate) fn take_short_integer(&mut self) -> Option<i64> {
        let (number, end) = short_integer_at(self.text.as_bytes(), self.at)?;
        self.at = end;
        Some(number)
    }

    /// Passes what may follow the document's value: space, then the end.
    ///
    /// # Errors
    /// [`JsonFault::End`] where there is more.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.error(JsonFault::End)
        }
    }

    /// Refuses to open one more container where `depth` are open.
    ///
    /// # Errors
    /// [`JsonFault::TooDeep`].
    #[inline]
    pub fn enter(&self, depth: u32) -> Result<(), JsonError> {
        if depth + 1 >= DEPTH_LIMIT {
            self.error(JsonFault::TooDeep)
        } else {
            Ok(())
        }
    }

    /// Passes one value, checked whole; it stands at the value's first byte and `depth` containers are open.
    ///
    /// # Errors
    /// What is wrong with the value.
    #[inline]
    pub fn skip_value(&mut self, depth: u32) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'{') => self.skip_containers(depth).map(|()| Kind::Object),
            Some(b'[') => self.skip_containers(depth).map(|()| Kind::Array),
            _ => self.skip_scalar(),
        }
    }

    /// Passes what stands here, which the caller has looked at.
    #[inline]
    pub(crate) const fn pass(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Passes a value that is neither an array nor an object.
    ///
    /// # Errors
    /// What is wrong with the value.
    #[inline]
    pub(crate) fn skip_scalar(&mut self) -> Result<Kind, JsonError> {
        let (kind, end) = scalar_at(self.text, self.at)?;
        self.at = end;
        Ok(kind)
    }

    /// Passes an array or object with all in it. One bit per open container tells which it is, so no recursion.
    fn skip_containers(&mut self, depth: u32) -> Result<(), JsonError> {
        let mut objects: u128 = 0;
        let mut open = 0;
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.enter(depth + open)?;
                    self.at += 1;
                    self.skip_space();
                    if !self.take(b'}') {
                        self.skip_key()?;
                        objects = objects << 1 | 1;
                        open += 1;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(depth + open)?;
                    self.at += 1;
                    self.skip_space();
                    if !self.take(b']') {
                        objects <<= 1;
                        open += 1;
                        continue;
                    }
                }
                _ => {
                    self.skip_scalar()?;
                }
            }
            // A value ended: close what closes, until the next value begins.
            loop {
                if open == 0 {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                self.skip_space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.skip_space();
                        if in_object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => self.at += 1,
                    Some(b']') if !in_object => self.at += 1,
                    _ if in_object => return self.error(JsonFault::CommaOrBrace),
                    _ => return self.error(JsonFault::CommaOrBracket),
                }
                objects >>= 1;
                open -= 1;
            }
        }
    }

    /// Passes a member's name, its colon and the space up to its value; whether the name holds an escape, and the
    /// byte after its closing quote.
    #[inline]
    pub(crate) fn skip_key(&mut self) -> Result<(bool, usize), JsonError> {
        if self.peek() != Some(b'"') {
            return self.error(JsonFault::Name);
        }
        let escaped = self.skip_string()?;
        let end = self.at;
        self.skip_space();
        if !self.take(b':') {
            return self.error(JsonFault::Colon);
        }
        self.skip_space();
        Ok((escaped, end))
    }

    /// Passes a string; it stands at the opening quote.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn string(&mut self) -> Result<RawString<'a>, JsonError> {
        let start = self.at + 1;
        let escaped = self.skip_string()?;
        // Both ends are at ASCII bytes, so at characters' borders.
        Ok(RawString {
            raw: &self.text[start..self.at - 1],
            escaped,
        })
    }

    /// Passes a string; whether it holds an escape.
    #[inline]
    pub(crate) fn skip_string(&mut self) -> Result<bool, JsonError> {
        let (escaped, end) = string_at(self.text.as_bytes(), self.at)?;
        self.at = end;
        Ok(escaped)
    }
}

/// The value at `at` that is neither an array nor an object: its kind, and the byte after it.
///
/// A function of places, as the ones below: a scanner that is written to at every step is written to memory, and each step
/// waits for the one before to come back from there.
///
/// # Errors
/// What is wrong with the value.
#[inline(always)]
pub(crate) fn scalar_at(text: &str, at: usize) -> Result<(Kind, usize), JsonError> {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'"') => {
            let (escaped, end) = string_at(bytes, at)?;
            let kind = if escaped {
                Kind::EscapedString
            } else {
                Kind::String
            };
            Ok((kind, end))
        }
        Some(b'-' | b'0'..=b'9') => number_at(text, at),
        Some(b't') => word_at(bytes, at, "true", Kind::True),
        Some(b'f') => word_at(bytes, at, "false", Kind::False),
        Some(b'n') => word_at(bytes, at, "null", Kind::Null),
        _ => Err(JsonError::new(JsonFault::Value, at)),
    }
}

/// So many bytes are looked at without asking for their end.
pub(crate) const WINDOW: usize = 64;
/// A scalar begins before this byte of a window.
pub(crate) const WINDOW_BEGIN: usize = 32;

/// The scalar that begins at `start` of a window, below [`WINDOW_BEGIN`]: its kind, and the byte after it. `None` where there is
/// something to it: [`scalar_at`] tells what.
///
/// The same as that finds, with no look at where the document ends: the compiler sees that all is within the window.
#[inline(always)]
pub(crate) fn plain_scalar_in(window: &[u8; WINDOW], start: usize) -> Option<(Kind, usize)> {
    let start = start % WINDOW_BEGIN;
    match window[start] {
        b'"' => {
            let end = (0..2).find_map(|sixteen| {
                let from = start + 1 + 16 * sixteen;
                let ends = ends_of_plain(sixteen_in(window, from));
                (ends != 0).then(|| from + ends.trailing_zeros() as usize)
            })?;
            (window[end % WINDOW] == b'"').then_some((Kind::String, end + 1))
        }
        sign @ (b'-' | b'0'..=b'9') => number::plain_in(window, start + usize::from(sign == b'-')),
        _ => None,
    }
}

/// The sixteen bytes from `at` on, which is 48 at most.
#[inline(always)]
fn sixteen_in(window: &[u8; WINDOW], at: usize) -> u8x16 {
    let chunk = window[at..].first_chunk();
    u8x16::new(*chunk.expect("all sixteen are in the window"))
}

fn word_at(
    bytes: &[u8],
    at: usize,
    word: &'static str,
    kind: Kind,
) -> Result<(Kind, usize), JsonError> {
    if bytes[at..].starts_with(word.as_bytes()) {
        Ok((kind, at + word.len()))
    } else {
        Err(JsonError::new(JsonFault::Value, at))
    }
}

/// The string that opens at `at`: whether it holds an escape, and the byte after its closing quote.
#[inline(always)]
fn string_at(bytes: &[u8], at: usize) -> Result<(bool, usize), JsonError> {
    let end = plain_end(bytes, at + 1);
    if bytes.get(end) == Some(&b'"') {
        Ok((false, end + 1))
    } else {
        odd_string_end(bytes, end).map(|end| (true, end))
    }
}

/// Goes on in a string at what is not its plain end: the byte after its closing quote.
#[inline(never)]
fn odd_string_end(bytes: &[u8], mut at: usize) -> Result<usize, JsonError> {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = escape_end(bytes, at)?,
            Some(_) => return Err(JsonError::new(JsonFault::Control, at)),
            None => return Err(JsonError::new(JsonFault::Quote, at)),
        }
        at = plain_end(bytes, at);
    }
}

/// The byte after the escape at `at`.
fn escape_end(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match code_unit(bytes, at)? {
            0xD800..=0xDBFF => {
                let low = at + 6;
                let is_escape = bytes.get(low) == Some(&b'\\') && bytes.get(low + 1) == Some(&b'u');
                if is_escape && matches!(code_unit(bytes, low)?, 0xDC00..=0xDFFF) {
                    Ok(at + 12)
                } else {
                    Err(JsonError::new(JsonFault::LoneSurrogate, at))
                }
            }
            0xDC00..=0xDFFF => Err(JsonError::new(JsonFault::LoneSurrogate, at)),
            _ => Ok(at + 6),
        },
        _ => Err(JsonError::new(JsonFault::Escape, at)),
    }
}

/// The UTF-16 unit of the `\uXXXX` that starts at `at`.
fn code_unit(bytes: &[u8], at: usize) -> Result<u32, JsonError> {
    let digits = bytes.get(at + 2..at + 6).and_then(hex4);
    digits.ok_or(JsonError::new(JsonFault::Hex, at))
}

/// The sixteen bytes from `at` on, where there are as many.
#[inline(always)]
fn sixteen_at(bytes: &[u8], at: usize) -> Option<u8x16> {
    let chunk = bytes.get(at..at + 16)?;
    let chunk: [u8; 16] = chunk.try_into().expect("a slice of sixteen bytes");
    Some(u8x16::new(chunk))
}

/// A bit for each byte that a string cannot hold as it is: a quote, a backslash, a control character.
#[inline(always)]
fn ends_of_plain(chunk: u8x16) -> u32 {
    let is_control = chunk.min(u8x16::splat(0x1F)).cmp_eq(chunk);
    let is_quote = chunk.cmp_eq(u8x16::splat(b'"'));
    let is_backslash = chunk.cmp_eq(u8x16::splat(b'\\'));
    (is_control | is_quote | is_backslash).move_mask() as u32
}

/// The first byte from `at` on that a string cannot hold as it is, or the end. Sixteen bytes at a time, as most of a record is
/// inside strings.
#[inline(always)]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = sixteen_at(bytes, at) {
        let ends = ends_of_plain(chunk);
        if ends != 0 {
            return at + ends.trailing_zeros() as usize;
        }
        at += 16;
    }
    plain_end_of_few(bytes, at)
}

/// As [`plain_end`], for fewer than sixteen bytes.
#[inline(never)]
fn plain_end_of_few(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    at + rest.iter().position(is_end).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(bytes: &[u8]) -> Result<Kind, JsonError> {
        let mut scanner = Scanner::new(utf8(bytes)?);
        scanner.skip_space();
        let kind = scanner.skip_value(0)?;
        scanner.end()?;
        Ok(kind)
    }

    /// As it is, and with so much space behind it that sixteen bytes can be looked at from its last one on.
    fn same_as_serde_json(bytes: &[u8]) {
        same_as_it_is(bytes);
        same_as_it_is(&[bytes, &[b' '; 16]].concat());
    }

    fn same_as_it_is(bytes: &[u8]) {
        let ours = check(bytes);
        let theirs = serde_json::from_slice::<Value>(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        match (&ours, &theirs) {
            (Ok(kind), Ok(value)) => {
                let same = match value {
                    Value::Null => *kind == Kind::Null,
                    Value::Bool(b) => *kind == if *b { Kind::True } else { Kind::False },
                    Value::Number(_) => kind.is_number(),
                    Value::String(_) => kind.is_string(),
                    Value::Array(_) => *kind == Kind::Array,
                    Value::Object(_) => *kind == Kind::Object,
                };
                assert!(same, "{kind:?} for {shown}");
            }
            (Err(error), Err(_)) => {
                assert!(error.at as usize <= bytes.len(), "{error:?} for {shown}")
            }
            _ => panic!("ours {ours:?}, serde_json {theirs:?} for {shown}"),
        }
    }

    #[test]
    fn every_document_of_the_corpus_is_judged_as_its_name_says_and_as_serde_json_does() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/json");
        let mut judged = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            same_as_serde_json(&bytes);
            assert_eq!(check(&bytes).is_ok(), name.starts_with("y_"), "{name}");
            judged += 1;
        }
        assert!(judged > 150, "{judged} documents");
    }

    #[test]
    fn nesting_of_100_000_levels_is_too_deep_and_no_stack_overflow() {
        for open in ["[", "{\"a\":", "[{\"a\":"] {
            let error = check(open.repeat(100_000).as_bytes()).unwrap_err();
            assert_eq!(error.fault, JsonFault::TooDeep, "{open}");
            assert!(error.at < 1_000, "noticed at the limit, not at the end");
        }
    }

    #[test]
    fn a_string_of_10_mb_is_scanned() {
        let document = format!("\"{}\"", "x\\u00e9".repeat(10 << 17));
        assert_eq!(check(document.as_bytes()), Ok(Kind::EscapedString));
    }

    #[test]
    fn every_byte_at_every_place_of_a_short_string_is_judged_as_serde_json_does() {
        for len in 0..20 {
            for at in 0..=len {
                for byte in 0..=255 {
                    let mut document = vec![b'x'; len + 2];
                    document[0] = b'"';
                    document[len + 1] = b'"';
                    document[at] = byte;
                    same_as_serde_json(&document);
                }
            }
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_number_is_judged_as_serde_json_does() {
        for number in [
            "1234567890123456789",
            "-0.1234567890123456789",
            "12e00000000000000001",
            "-12.25",
            "0.123456789012",
            "123456789012345",
        ] {
            for at in 0..number.len() {
                for byte in 0..=255 {
                    for after in ["", " ", "        "] {
                        let mut document = [number, after].concat().into_bytes();
                        document[at] = byte;
                        same_as_serde_json(&document);
                    }
                }
            }
        }
    }

    /// The standard library takes each of them for another number than it is.
    #[test]
    fn numbers_of_a_megabyte_are_judged_and_read_as_serde_json_does() {
        let zeros = "0".repeat(700_000);
        for (document, is) in [
            (format!("1{zeros}e-700000"), Some(1.0)),
            (format!("0.{zeros}1e700001"), Some(1.0)),
            (format!("0.{zeros}1e2000000"), None),
        ] {
            same_as_serde_json(document.as_bytes());
            assert_eq!(number(&document), is);
        }
    }

    #[test]
    fn names_are_compared_after_unescaping() {
        let is = |document: &str, wanted: &str| Scanner::new(document).string().unwrap().is(wanted);
        assert!(is(r#""lat""#, "lat"));
        assert!(is(r#""\u006cat""#, "lat"));
        assert!(is(r#""\ud83d\ude00x""#, "😀x"));
        assert!(is(r#""a\/b""#, "a/b"));
        assert!(!is(r#""\u006cat""#, "la"));
        assert!(!is(r#""\u006cat""#, "late"));
        assert!(!is(r#""\\u006cat""#, "lat"));
    }

    /// Numbers in every form, also wrong ones.
    fn some_number() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| format!("{n:e}")),
            any::<f64>().prop_map(|n| n.to_string()),
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?",
            r"-?[0-9]{1,3}(\.[0-9]{0,3})?([eE][+-]?[0-9]{0,12})?",
            (290_usize..330, -40_i32..40).prop_map(|(n, e)| format!("7{}e{e}", "0".repeat(n))),
        ]
    }

    fn string() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-z0-9 é€😀]{0,12}",
            1 => r#"\\["\\/bfnrt]"#,
            1 => r"\\u[0-9a-fA-F]{4}",
            1 => r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}",
        ];
        prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
    }

    fn document() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            some_number(),
            string(),
        ];
        let space = || "[ \n\t\r]{0,2}";
        leaf.prop_recursive(6, 60, 6, move |inner| {
            let item = (space(), inner.clone(), space()).prop_map(|(a, b, c)| a + &b + &c);
            let member = (space(), string(), space(), inner, space())
                .prop_map(|(a, name, b, value, c)| format!("{a}{name}{b}:{value}{c}"));
            prop_oneof![
                prop::collection::vec(item, 0..6)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(member, 0..6)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    const ODD_BYTES: &[u8] =
        b"{}[]\",:\\u0123456789eE+-. \n\ttrfnd\x00\x1f\x7f\x80\xc3\xed\xa0\xff";

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_500,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn generated_documents_are_judged_as_serde_json_does(document in document()) {
            same_as_serde_json(document.as_bytes());
        }

        #[test]
        fn mutated_documents_are_judged_as_serde_json_does(
            document in document(),
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(ODD_BYTES)), 1..4),
        ) {
            let mut bytes = document.into_bytes();
            for (at, what, byte) in edits {
                let at = at.index(bytes.len() + 1);
                match what {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => bytes[at] = byte,
                    _ if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            same_as_serde_json(&bytes);
        }

        #[test]
        fn arbitrary_bytes_are_judged_as_serde_json_does(
            bytes in prop::collection::vec(prop::sample::select(ODD_BYTES), 0..40),
        ) {
            same_as_serde_json(&bytes);
        }

        #[test]
        fn numbers_are_judged_as_serde_json_does(number in some_number()) {
            same_as_serde_json(number.as_bytes());
        }

        #[test]
        fn short_decimals_are_read_to_the_last_bit_as_the_standard_library_does(
            number in prop_oneof![some_number(), r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?"],
            before in prop::sample::select(vec!["", "[12345678,"]),
            after in prop::sample::select(vec!["", ",", "]", " ,", "\n", ",1234567890123456", "              "]),
        ) {
            let text = format!("{before}{number}{after}");
            let mut scanner = Scanner::standing_at(&text, before.len());
            if check(number.as_bytes()).is_err() {
                // It is asked for numbers of checked documents only.
            } else if let Some(read) = scanner.take_decimal() {
                prop_assert_eq!(read.to_bits(), number.parse::<f64>().unwrap().to_bits(), "{}", number);
                prop_assert_eq!(scanner.at(), before.len() + number.len());
            } else {
                prop_assert_eq!(scanner.at(), before.len());
                let digits = number.bytes().filter(u8::is_ascii_digit).count();
                prop_assert!(digits > 15 || number.contains(['e', 'E']), "{}", number);
            }
        }

        #[test]
        fn short_integers_are_read_as_the_standard_library_does(
            number in prop_oneof![any::<i64>(), -1_000_000_i64..2_000_000_000_000],
            after in prop::sample::select(vec!["", ",", "}", ", \"lat\": 12.5678", ",1234567890123456"]),
        ) {
            let text = format!("{number}{after}");
            let read = Scanner::new(&text).take_short_integer();
            prop_assert_eq!(read.unwrap_or(number), number);
            let is_short = number.abs() < 1_000_000_000_000_000 && after.len() > 15;
            prop_assert!(read.is_some() || !is_short, "{}", text);
        }

        #[test]
        fn strings_are_unescaped_as_serde_json_does(document in string()) {
            if let Ok(theirs) = serde_json::from_str::<String>(&document) {
                let raw = Scanner::new(&document).string().unwrap();
                prop_assert_eq!(unescape(raw.raw).collect::<String>(), theirs.as_str());
                prop_assert!(raw.is(&theirs));
            }
        }

        #[test]
        fn strings_are_written_so_that_serde_json_reads_the_same(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&super::string(&text)).unwrap(), text);
        }
    }
}
