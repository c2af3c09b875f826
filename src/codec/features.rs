//! Reads the Features of a file one by one: a FeatureCollection of any size, GeoJSONSeq (RFC 8142), NDJSON, or
//! Features that simply follow each other. The bytes of each are handed on as they stand, with their place.
//!
//! Only the borders of values are found here (brackets and strings); whether a Feature is good is judged by
//! [`crate::codec::zone_change`], so that one bad Feature can be named and skipped. No tree, and no more memory than
//! one Feature takes.

use std::fmt;
use std::io::{self, BufRead};

use crate::codec::crs;
use crate::codec::json::{self, DEPTH_LIMIT, Kind};
use crate::codec::pointer::{Paths, Pointer};

/// Where a Feature stands in its file.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FeaturePlace {
    /// The how-manieth Feature of the file it is, from 1.
    pub number: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// The byte at which it begins, from 0.
    pub byte: u64,
}

impl fmt::Display for FeaturePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "feature {} (line {})", self.number, self.line)
    }
}

/// Why a file could not be read to its end.
#[derive(Debug)]
pub enum FeaturesError {
    /// The file could not be read.
    Io(io::Error),
    /// Its structure is broken, so that what follows cannot be told apart.
    Broken {
        /// The line, from 1.
        line: u64,
        /// The byte, from 0.
        byte: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for FeaturesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read: {error}"),
            Self::Broken { line, byte, what } => write!(f, "line {line} (byte {byte}): {what}"),
        }
    }
}

impl std::error::Error for FeaturesError {}

impl From<io::Error> for FeaturesError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// RFC 8142: each text of a sequence begins with this.
const RECORD_SEPARATOR: u8 = 0x1e;

/// Where in the file the reader is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Level {
    /// Between the texts of the file.
    Top,
    /// Inside the `features` of a FeatureCollection.
    Collection,
    /// After `features`, among the other members of a FeatureCollection.
    AfterFeatures,
}

/// What the top-level object turned out to be.
enum Opened {
    /// A whole value, in the buffer.
    Whole,
    /// A FeatureCollection, read up to the first of its features.
    Collection,
}

/// Reads Features from a file.
#[derive(Debug)]
pub struct FeatureReader<R> {
    input: R,
    line: u64,
    byte: u64,
    /// The first byte of the file is still to come.
    fresh: bool,
    number: u64,
    feature_bytes_max: usize,
    level: Level,
    buffer: Vec<u8>,
    /// The first coordinate system that is not ours.
    crs: Option<String>,
}

impl<R: BufRead> FeatureReader<R> {
    /// A reader of `input`. Of a Feature longer than `feature_bytes_max` one byte more than that is kept, so that
    /// judging it by the same cap says `too_large`.
    #[must_use]
    pub fn new(input: R, feature_bytes_max: usize) -> Self {
        Self {
            input,
            line: 1,
            byte: 0,
            fresh: true,
            number: 0,
            feature_bytes_max,
            level: Level::Top,
            buffer: Vec::new(),
            crs: None,
        }
    }

    /// A coordinate system that the file says it is in, so far, and that is not longitude and latitude in WGS 84.
    #[must_use]
    pub fn foreign_crs(&self) -> Option<&str> {
        self.crs.as_deref()
    }

    /// Looks at the value that was kept last if its member is `crs`.
    fn look_at_crs(&mut self, is_crs: bool, start: usize) {
        if is_crs && self.crs.is_none() {
            self.crs = self.buffer.get(start..).and_then(crs::foreign);
        }
    }

    /// The next Feature: its place and its bytes, until the next call. `None` at the end of the file.
    ///
    /// # Errors
    /// A [`FeaturesError`]; after one there is nothing more to read.
    pub fn next_feature(&mut self) -> Result<Option<(FeaturePlace, &[u8])>, FeaturesError> {
        let place = loop {
            match self.level {
                Level::Top => {
                    if !self.skip_to_text()? {
                        return Ok(None);
                    }
                    let place = self.place();
                    match self.open()? {
                        Opened::Whole => break place,
                        Opened::Collection => self.level = Level::Collection,
                    }
                }
                Level::Collection => {
                    self.skip_space()?;
                    if self.take(b']')? {
                        self.level = Level::AfterFeatures;
                        continue;
                    }
                    let place = self.place();
                    self.buffer.clear();
                    self.value()?;
                    self.skip_space()?;
                    if !self.take(b',')? && self.peek()? != Some(b']') {
                        return Err(self.broken("expected `,` or `]` after a feature"));
                    }
                    break place;
                }
                Level::AfterFeatures => self.finish_collection()?,
            }
        };
        self.number += 1;
        Ok(Some((
            FeaturePlace {
                number: self.number,
                ..place
            },
            &self.buffer,
        )))
    }

    fn place(&self) -> FeaturePlace {
        FeaturePlace {
            number: 0,
            line: self.line,
            byte: self.byte,
        }
    }

    /// Passes what may stand between texts: space, record separators, a byte order mark at the file's start (editors
    /// write one). Returns whether there is a text.
    fn skip_to_text(&mut self) -> Result<bool, FeaturesError> {
        if std::mem::take(&mut self.fresh) && self.peek()? == Some(0xef) {
            for expected in [0xef, 0xbb, 0xbf] {
                if !self.take(expected)? {
                    return Err(self.broken("not UTF-8"));
                }
            }
        }
        loop {
            self.skip_space()?;
            if !self.take(RECORD_SEPARATOR)? {
                return Ok(self.peek()?.is_some());
            }
        }
    }

    /// Reads a text of the file: whole, or up to the first feature where it is a FeatureCollection.
    ///
    /// A text that is broken is handed on up to the end of its line, for the decoder to refuse: so one bad line of
    /// NDJSON is named and the lines after it are read.
    fn open(&mut self) -> Result<Opened, FeaturesError> {
        self.buffer.clear();
        match self.open_object() {
            Err(FeaturesError::Broken { .. }) => {
                // Noticed at the start of another line, it ended with the line before: this one is a text of its own.
                let text = self.buffer.trim_ascii_end().len();
                if !self.buffer[text..].contains(&b'\n') {
                    self.keep_while(|byte| byte != b'\n')?;
                }
                Ok(Opened::Whole)
            }
            opened => opened,
        }
    }

    fn open_object(&mut self) -> Result<Opened, FeaturesError> {
        if self.peek()? != Some(b'{') {
            return Err(self.broken("expected a Feature or a FeatureCollection"));
        }
        self.keep_next()?;
        self.keep_space()?;
        if self.peek()? == Some(b'}') {
            self.keep_next()?;
            return Ok(Opened::Whole);
        }
        loop {
            let key = self.buffer.len();
            if self.peek()? != Some(b'"') {
                return Err(self.broken("expected a member name"));
            }
            self.string()?;
            let is_features = self.buffer.get(key..).is_some_and(is_features_name);
            let is_crs = self.buffer.get(key..).is_some_and(is_crs_name);
            self.keep_space()?;
            if self.peek()? != Some(b':') {
                return Err(self.broken("expected `:`"));
            }
            self.keep_next()?;
            self.keep_space()?;
            if is_features && self.peek()? == Some(b'[') && !says_feature(&self.buffer) {
                self.pass()?;
                return Ok(Opened::Collection);
            }
            let value = self.buffer.len();
            self.value()?;
            self.look_at_crs(is_crs, value);
            self.keep_space()?;
            let next = self.peek()?;
            if !matches!(next, Some(b',' | b'}')) {
                return Err(self.broken("expected `,` or `}`"));
            }
            self.keep_next()?;
            if next == Some(b'}') {
                return Ok(Opened::Whole);
            }
            self.keep_space()?;
        }
    }

    /// Passes the members after `features` and the closing brace.
    fn finish_collection(&mut self) -> Result<(), FeaturesError> {
        loop {
            self.skip_space()?;
            if self.take(b'}')? {
                self.level = Level::Top;
                return Ok(());
            }
            if !self.take(b',')? {
                return Err(self.broken("expected `,` or `}` after `features`"));
            }
            self.skip_space()?;
            self.buffer.clear();
            if self.peek()? != Some(b'"') {
                return Err(self.broken("expected a member name"));
            }
            self.string()?;
            if is_features_name(&self.buffer) {
                return Err(self.broken("`features` is named twice"));
            }
            let is_crs = is_crs_name(&self.buffer);
            self.skip_space()?;
            if !self.take(b':')? {
                return Err(self.broken("expected `:`"));
            }
            self.skip_space()?;
            self.buffer.clear();
            self.value()?;
            self.look_at_crs(is_crs, 0);
        }
    }

    /// Keeps one value: up to the bracket that closes it, the quote that ends it, or what cannot belong to a word.
    fn value(&mut self) -> Result<(), FeaturesError> {
        let mut open = 0_u32;
        loop {
            match self.peek()? {
                None if open > 0 => return Err(self.broken("the file ends inside a value")),
                None => return Err(self.broken("expected a value")),
                Some(b'"') => self.string()?,
                Some(b'{' | b'[') => {
                    // Far beyond what is read: kept open, it would only be found out at the end of the file.
                    if open > 2 * DEPTH_LIMIT {
                        return Err(self.broken("nested too deep"));
                    }
                    open += 1;
                    self.keep_next()?;
                    continue;
                }
                Some(b'}' | b']') if open > 0 => {
                    open -= 1;
                    self.keep_next()?;
                }
                Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':') if open > 0 => self.keep_next()?,
                Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' | b'}' | b']') => {
                    return Err(self.broken("expected a value"));
                }
                Some(_) => self.word()?,
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn word(&mut self) -> Result<(), FeaturesError> {
        self.keep_while(|byte| !b" \n\r\t,:{}[]\"".contains(&byte))
    }

    fn string(&mut self) -> Result<(), FeaturesError> {
        self.keep_next()?;
        loop {
            self.keep_while(|byte| byte != b'"' && byte != b'\\' && byte != b'\n')?;
            match self.peek()? {
                None => return Err(self.broken("the file ends inside a string")),
                Some(b'\n') => return Err(self.broken("a line ends inside a string")),
                Some(b'"') => return self.keep_next(),
                Some(_) => {
                    self.keep_next()?;
                    if self.peek()?.is_some() {
                        self.keep_next()?;
                    }
                }
            }
        }
    }

    fn keep_space(&mut self) -> Result<(), FeaturesError> {
        self.keep_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
    }

    fn skip_space(&mut self) -> Result<(), FeaturesError> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek()? {
            self.pass()?;
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<u8>, FeaturesError> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, byte: u8) -> Result<bool, FeaturesError> {
        let is = self.peek()? == Some(byte);
        if is {
            self.pass()?;
        }
        Ok(is)
    }

    /// Passes the byte that was peeked.
    fn pass(&mut self) -> Result<(), FeaturesError> {
        let newline = self.peek()? == Some(b'\n');
        self.input.consume(1);
        self.line += u64::from(newline);
        self.byte += 1;
        Ok(())
    }

    fn keep_next(&mut self) -> Result<(), FeaturesError> {
        if let Some(byte) = self.peek()? {
            keep(&mut self.buffer, self.feature_bytes_max, &[byte]);
            self.pass()?;
        }
        Ok(())
    }

    fn keep_while(&mut self, wanted: impl Fn(u8) -> bool) -> Result<(), FeaturesError> {
        while self.peek()?.is_some_and(&wanted) {
            let bytes = self.input.fill_buf()?;
            let len = bytes
                .iter()
                .position(|&byte| !wanted(byte))
                .unwrap_or(bytes.len());
            self.line += memchr::memchr_iter(b'\n', &bytes[..len]).count() as u64;
            keep(&mut self.buffer, self.feature_bytes_max, &bytes[..len]);
            self.input.consume(len);
            self.byte += len as u64;
        }
        Ok(())
    }

    fn broken(&self, what: &'static str) -> FeaturesError {
        FeaturesError::Broken {
            line: self.line,
            byte: self.byte,
            what,
        }
    }
}

/// Keeps bytes up to the cap and one more, which is what shows that there were more.
fn keep(buffer: &mut Vec<u8>, max: usize, bytes: &[u8]) {
    let room = max.saturating_add(1).saturating_sub(buffer.len());
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn is_features_name(quoted: &[u8]) -> bool {
    is_name(quoted, "features")
}

fn is_crs_name(quoted: &[u8]) -> bool {
    is_name(quoted, "crs")
}

fn is_name(quoted: &[u8], name: &str) -> bool {
    let document = json::utf8(quoted).ok();
    document.is_some_and(|text| {
        json::Scanner::new(text)
            .string()
            .is_ok_and(|string| string.is(name))
    })
}

/// Whether the members read so far say that the object is a Feature: then `features` is a foreign member of it.
fn says_feature(members: &[u8]) -> bool {
    // The members end at `"features":`; an added null makes them an object.
    let mut object = members.to_vec();
    object.extend_from_slice(b"null}");
    let mut paths = Paths::new();
    let kind = paths.add(&Pointer::of(&["type"]));
    let mut slots = vec![None; paths.slot_count()];
    let Ok(text) = json::utf8(&object) else {
        return false;
    };
    paths
        .scan(text, &mut slots)
        .is_ok_and(|scanned| scanned.kind == Kind::Object)
        && Paths::slot(&slots, kind)
            .and_then(|slot| slot.string(text))
            .is_some_and(|string| string.is("Feature"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::*;

    /// The features with their lines, and how the reading ended.
    fn read_by(input: &[u8], chunk: usize, max: usize) -> (Vec<(u64, String)>, Option<String>) {
        let mut reader = FeatureReader::new(BufReader::with_capacity(chunk, input), max);
        let mut features = Vec::new();
        loop {
            match reader.next_feature() {
                Ok(Some((place, bytes))) => {
                    assert_eq!(place.number, features.len() as u64 + 1);
                    let begins = &input[usize::try_from(place.byte).unwrap()..];
                    assert!(
                        begins.starts_with(bytes),
                        "the place is where the bytes stand"
                    );
                    features.push((place.line, String::from_utf8_lossy(bytes).into_owned()));
                }
                Ok(None) => return (features, None),
                Err(error) => return (features, Some(error.to_string())),
            }
        }
    }

    fn read(input: &str) -> (Vec<(u64, String)>, Option<String>) {
        let whole = read_by(input.as_bytes(), 1 << 16, 1 << 20);
        assert_eq!(
            whole,
            read_by(input.as_bytes(), 1, 1 << 20),
            "however it is chunked"
        );
        whole
    }

    fn texts(input: &str) -> Vec<String> {
        let (features, error) = read(input);
        assert_eq!(error, None, "{input}");
        features.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_collection_is_read_whatever_stands_around_its_features() {
        let one = r#"{"type":"Feature","id":1,"properties":{"features":["]","}\""]}}"#;
        for input in [
            format!(r#"{{"type":"FeatureCollection","features":[{one},{{"id":2}}]}}"#),
            format!(
                "\u{feff} {{\"crs\":{{\"features\":[1]}},\n\"f\\u0065atures\" : [ \n{one} ,\n{{\"id\":2}}\n] ,\"type\":\"FeatureCollection\"}}\n"
            ),
        ] {
            assert_eq!(texts(&input), [one, "{\"id\":2}"]);
        }
        assert_eq!(
            texts(r#"{"features":[],"type":"FeatureCollection"}"#),
            [""; 0]
        );
    }

    #[test]
    fn lines_sequences_and_pretty_features_are_read() {
        let (a, b) = (
            r#"{"type":"Feature","id":"a"}"#,
            "{\"type\":\"Feature\",\n \"id\": \"b\"\n}",
        );
        assert_eq!(texts(&format!("{a}\n\n{a}\r\n{a}")), [a, a, a]);
        assert_eq!(texts(&format!("\u{1e}{a}\n\u{1e}{b}\n")), [a, b]);
        assert_eq!(texts(b), [b]);
        assert_eq!(texts(&format!("{b}\n{b}{a}")), [b, b, a]);
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(texts(" \n\n"), [""; 0]);
        let (features, _) = read(&format!("{a}\n\n{b}\n{a}"));
        assert_eq!(
            features.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 3, 6]
        );
    }

    #[test]
    fn a_feature_with_a_member_named_features_is_one_feature() {
        let feature = r#"{"type":"Feature","features":[{"id":1}],"id":"a"}"#;
        assert_eq!(texts(feature), [feature]);
        let not_a_list = r#"{"features":{"id":1}}"#;
        assert_eq!(texts(not_a_list), [not_a_list]);
    }

    #[test]
    fn a_broken_line_is_handed_on_and_the_lines_after_it_are_read() {
        let good = r#"{"id":"a"}"#;
        for broken in [
            "hello",
            "[1,2]",
            r#"{"id":"a""#,
            r#"{"id":"a}"#,
            r#"{"id":"a",,}"#,
            r#"{"id" "a"}"#,
            r#"{id:1}"#,
            r#"{"id":}"#,
            r#"{"a":[}"#,
        ] {
            let found = texts(&format!("{good}\n{broken}\n{good}\n"));
            assert_eq!(found.first().map(String::as_str), Some(good), "{broken}");
            assert_eq!(found.last().map(String::as_str), Some(good), "{broken}");
            assert!(found.len() >= 3, "{broken}: {found:?}");
        }
    }

    #[test]
    fn a_broken_collection_is_an_error_with_its_line() {
        for (input, line) in [
            ("{\"features\":[\n{\"id\":1}\n{\"id\":2}]}", 3),
            ("{\"features\":[\n{\"id\":1},\n", 3),
            ("{\"features\":[\n{\"id\":\"a\n", 2),
            ("{\"features\":[]", 1),
            ("{\"features\":[],\n\"features\":[]}", 2),
            ("{\"features\":[]\n\"x\":1}", 2),
        ] {
            let (_, error) = read(input);
            assert!(
                error
                    .as_ref()
                    .is_some_and(|text| text.starts_with(&format!("line {line} "))),
                "{input:?}: {error:?}"
            );
        }
    }

    #[test]
    fn of_a_feature_over_the_cap_just_enough_is_kept_to_refuse_it() {
        let huge = format!("{{\"id\":\"{}\"}}", "x".repeat(5_000));
        for input in [
            format!("{huge}\n{{\"id\":2}}"),
            format!("{{\"features\":[{huge},{{\"id\":2}}]}}"),
        ] {
            let (features, error) = read_by(input.as_bytes(), 64, 100);
            assert_eq!(error, None);
            assert_eq!(features[0].1.len(), 101);
            assert_eq!(features[1].1, "{\"id\":2}");
        }
    }

    #[test]
    fn nesting_of_100_000_levels_ends_soon() {
        let deep = "[".repeat(100_000);
        let (_, error) = read(&format!("{{\"features\":[{deep}"));
        assert_eq!(error.as_deref(), Some("line 1 (byte 270): nested too deep"));
        assert_eq!(read(&format!("{{\"a\":{deep}\n{{\"id\":1}}")).0.len(), 2);
    }

    #[test]
    fn a_collection_far_larger_than_one_feature_is_streamed() {
        struct Endless {
            feature: Cursor<Vec<u8>>,
            left: u32,
        }
        impl Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let len = self.feature.read(out)?;
                if len > 0 || self.left == 0 {
                    return Ok(len);
                }
                self.left -= 1;
                self.feature.set_position(0);
                self.feature.read(out)
            }
        }
        let feature = format!("{{\"id\":1,\"x\":\"{}\"}},", "x".repeat(10_000)).into_bytes();
        let start: &[u8] = b"{\"type\":\"FeatureCollection\",\"features\":[";
        let endless = Endless {
            feature: Cursor::new(feature),
            left: 999,
        };
        let input = start.chain(endless).chain(b"{\"id\":2}]}".as_slice());
        let mut reader = FeatureReader::new(BufReader::new(input), 1 << 20);
        let mut count = 0;
        while let Some((_, bytes)) = reader.next_feature().unwrap() {
            assert!(bytes.len() <= 10_020);
            count += 1;
        }
        assert_eq!(count, 1_001);
        assert!(
            reader.buffer.capacity() < 100_000,
            "one feature at a time is held"
        );
    }
}
