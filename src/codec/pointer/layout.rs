//! Records of one producer differ in their scalars alone: the names, the order and all that is between are the same bytes in
//! each. A [`Layout`] is those bytes of one record. Where they stand in the next one too, only the scalars are left to judge.
//!
//! It judges nothing else: a record is read by a layout if it is the layout's own record, which was scanned whole, with other
//! scalars in the places of its scalars. What does not fit is scanned whole, and told as that tells it. The idea is Mison's
//! (Li et al., "Mison: a fast JSON parser for data analytics", VLDB 2017), made strict.

use wide::u8x16;

use super::{Kind, Paths, Scanned, Slot};
use crate::codec::json::{Scanner, WINDOW, WINDOW_BEGIN, plain_scalar_in, scalar_at};
use crate::rejection::Rejection;

/// How many layouts are kept: of the producers of a topic, and of their optional members.
const KEPT: usize = 4;
/// Once so many are kept, one record in so many may replace one: learning costs about as much as two scans.
const LEARN_EVERY: u32 = 16;
/// The longest record that is learned, in bytes, and the most scalars that it may have: bounds what is kept.
const BYTES_MAX: usize = 4_096;
const SCALARS_MAX: usize = 128;

/// The layouts that were met lately with one [`Paths`].
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// Those that fit more often before.
    known: Vec<Layout>,
    /// Records since one was learned.
    since: u32,
}

#[derive(Clone, Debug)]
struct Layout {
    scalars: Vec<Scalar>,
    /// What stands behind the last scalar.
    end: Box<[u8]>,
    /// Where in `end` the object's closing brace stands.
    close: usize,
}

/// A scalar, and what stands before it.
#[derive(Clone, Debug)]
struct Scalar {
    before: Fixed,
    /// The slot that it fills.
    slot: Option<usize>,
}

/// Bytes that do not change.
#[derive(Clone, Debug)]
struct Fixed {
    bytes: Box<[u8]>,
    /// The first and the last sixteen of them, the same where there are no more; zeros where there are fewer, which stand at no
    /// place that counts.
    head: [u8; 16],
    tail: [u8; 16],
    /// A bit for each byte of `head` that counts.
    counts: u32,
    /// Where `tail` begins.
    tail_at: usize,
}

impl Fixed {
    fn new(bytes: &[u8]) -> Self {
        let mut head = [0; 16];
        let len = bytes.len().min(16);
        head[..len].copy_from_slice(&bytes[..len]);
        Self {
            head,
            tail: bytes.last_chunk().copied().unwrap_or(head),
            counts: (1 << len) - 1,
            tail_at: bytes.len().saturating_sub(16),
            bytes: bytes.into(),
        }
    }

    /// Whether a window begins with these bytes, if a scalar may follow them there.
    #[inline(always)]
    fn begins(&self, window: &[u8; WINDOW]) -> bool {
        let is = |sixteen: &[u8; 16], at: usize| {
            let there = window[at % 16..]
                .first_chunk()
                .expect("it is in the window");
            let same = u8x16::new(*there).cmp_eq(u8x16::new(*sixteen));
            same.move_mask() as u32 & self.counts == self.counts
        };
        self.bytes.len() < WINDOW_BEGIN
            && is(&self.head, 0)
            && (self.tail_at == 0 || is(&self.tail, self.tail_at))
    }

    /// Whether these bytes stand at `at`.
    fn is_at(&self, document: &[u8], at: usize) -> bool {
        document.get(at..at + self.bytes.len()) == Some(&*self.bytes)
    }
}

impl Layout {
    /// The layout of an object that was scanned, with the slots that it filled; `None` where it has no scalar, or a value of
    /// interest is none.
    fn of(paths: &Paths, text: &str, slots: &[Option<Slot>]) -> Option<Self> {
        let mut scalars = Vec::new();
        let mut filled = 0;
        let mut scanner = Scanner::new(text);
        let mut from = 0;
        while let Some(byte) = scanner.peek() {
            if matches!(
                byte,
                b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' | b'\n'
            ) {
                scanner.pass(1);
                continue;
            }
            let start = scanner.at();
            scanner.skip_scalar().ok()?;
            let end = scanner.at();
            scanner.skip_space();
            if scanner.peek() == Some(b':') {
                // A name.
                continue;
            }
            let fills = |slot: &Option<Slot>| slot.is_some_and(|slot| slot.range() == (start..end));
            let slot = slots.iter().position(fills);
            filled += usize::from(slot.is_some());
            let before = Fixed::new(&text.as_bytes()[from..start]);
            scalars.push(Scalar { before, slot });
            from = end;
        }
        // Where a container is of interest for what is in it alone, its slot is asked of nobody.
        let is_inner = |node: usize| !paths.nodes[node].children.is_empty();
        let is_container = |slot: &Slot| matches!(slot.kind, Kind::Object | Kind::Array);
        let wanted = (0..slots.len()).filter(|node| {
            slots[*node].is_some_and(|slot| !(is_inner(*node) && is_container(&slot)))
        });
        let end = &text.as_bytes()[from..];
        let close = end.iter().rposition(|byte| *byte == b'}')?;
        let is_whole =
            !scalars.is_empty() && scalars.len() <= SCALARS_MAX && filled == wanted.count();
        is_whole.then(|| Self {
            scalars,
            end: end.into(),
            close,
        })
    }

    /// Reads a record that has this layout; `None` where it has not, the slots are as they may be then.
    #[inline]
    fn read(&self, text: &str, slots: &mut [Option<Slot>]) -> Option<Scanned> {
        let mut rest = text.as_bytes();
        let mut scalars = self.scalars.iter();
        while let Some(window) = rest.first_chunk()
            && let Some(scalar) = scalars.next()
        {
            let at = text.len() - rest.len();
            let len = scalar.read(window, text, at, slots)?;
            rest = &rest[len..];
        }
        rest = Self::read_tail(scalars.as_slice(), text, rest, slots)?;
        (*rest == *self.end).then_some(Scanned {
            kind: Kind::Object,
            duplicate: None,
            close: text.len() - rest.len() + self.close,
            empty: false,
        })
    }

    /// Reads these scalars from the `rest` of a record, which is shorter than a window: from a copy with zeros behind it, which
    /// are part of no scalar and of nothing that stands before one. What is behind them.
    #[inline(never)]
    fn read_tail<'a>(
        scalars: &[Scalar],
        text: &str,
        mut rest: &'a [u8],
        slots: &mut [Option<Slot>],
    ) -> Option<&'a [u8]> {
        if scalars.is_empty() {
            return Some(rest);
        }
        let mut tail = [0; 2 * WINDOW];
        let len = rest.len();
        tail[..len].copy_from_slice(rest);
        for scalar in scalars {
            let from = (len - rest.len()) % WINDOW;
            let window = tail[from..].first_chunk();
            let window = window.expect("there is one behind each byte of the first");
            let len = scalar.read(window, text, text.len() - rest.len(), slots)?;
            rest = &rest[len..];
        }
        Some(rest)
    }
}

impl Scalar {
    /// Reads the scalar and what stands before it at `at` of a document, where a window begins: how long they are. `None` where
    /// they are not there.
    #[inline(always)]
    fn read(
        &self,
        window: &[u8; WINDOW],
        text: &str,
        at: usize,
        slots: &mut [Option<Slot>],
    ) -> Option<usize> {
        let (start, end, kind) = match self.in_window(window) {
            Some((kind, len)) => (at + self.before.bytes.len(), at + len, kind),
            None => self.anywhere(text, at)?,
        };
        if let Some(slot) = self.slot {
            let (start, end) = (start as u32, end as u32);
            slots[slot] = Some(Slot { start, end, kind });
        }
        Some(end - at)
    }

    /// The scalar and what stands before it, at the begin of a window; `None` where that cannot be told from the window, or is
    /// not so.
    #[inline(always)]
    fn in_window(&self, window: &[u8; WINDOW]) -> Option<(Kind, usize)> {
        if !self.before.begins(window) {
            return None;
        }
        plain_scalar_in(window, self.before.bytes.len())
    }

    /// The same at `at` of a document, wherever they end.
    #[inline(never)]
    fn anywhere(&self, text: &str, at: usize) -> Option<(usize, usize, Kind)> {
        if !self.before.is_at(text.as_bytes(), at) {
            return None;
        }
        let start = at + self.before.bytes.len();
        let (kind, end) = scalar_at(text, start).ok()?;
        Some((start, end, kind))
    }
}

impl Layouts {
    /// Scans as [`Paths::scan_object`] does, and sooner where the record is laid out like one of the last ones.
    ///
    /// `paths` must be the same in each call, and so must be the length of `slots`.
    ///
    /// # Errors
    /// As [`Paths::scan_object`].
    ///
    /// # Panics
    /// As [`Paths::scan_object`].
    #[inline]
    pub fn scan_object(
        &mut self,
        paths: &Paths,
        text: &str,
        slots: &mut [Option<Slot>],
    ) -> Result<Scanned, Rejection> {
        for place in 0..self.known.len() {
            if let Some(scanned) = self.known[place].read(text, slots) {
                if place > 0 {
                    self.known.swap(place - 1, place);
                }
                return Ok(scanned);
            }
            slots.fill(None);
        }
        self.scan_unknown(paths, text, slots)
    }

    #[cold]
    fn scan_unknown(
        &mut self,
        paths: &Paths,
        text: &str,
        slots: &mut [Option<Slot>],
    ) -> Result<Scanned, Rejection> {
        let scanned = paths.scan_object(text, slots)?;
        self.since += 1;
        let is_full = self.known.len() == KEPT;
        let is_small = text.len() <= BYTES_MAX;
        if is_small && (!is_full || self.since >= LEARN_EVERY) {
            self.since = 0;
            if let Some(layout) = Layout::of(paths, text, &slots[..paths.slot_count()]) {
                self.known.truncate(KEPT - 1);
                self.known.push(layout);
            }
        }
        Ok(scanned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::pointer::Pointer;

    fn paths() -> Paths {
        let mut paths = Paths::new();
        for pointer in [
            "/id",
            "/ts",
            "/pos/lat",
            "/pos/lon",
            "/a/0",
            "/longer_than_eight_bytes",
        ] {
            paths.add(&Pointer::parse(pointer).unwrap());
        }
        paths
    }

    /// Reads both ways, which must not differ; whether a layout was known.
    fn is_known(layouts: &mut Layouts, text: &str) -> bool {
        let paths = paths();
        let known = |slots: &mut [Option<Slot>], layouts: &Layouts| {
            layouts
                .known
                .iter()
                .any(|one| one.read(text, slots).is_some())
        };
        let is_known = known(&mut vec![None; paths.slot_count()], layouts);
        let (mut slots, mut plain) = (
            vec![None; paths.slot_count()],
            vec![None; paths.slot_count()],
        );
        let ours = layouts.scan_object(&paths, text, &mut slots);
        let theirs = paths.scan_object(text, &mut plain);
        assert_eq!(ours, theirs, "{text}");
        if theirs.is_ok() {
            for node in 0..paths.slot_count() {
                if paths.nodes[node].children.is_empty() {
                    assert_eq!(slots[node], plain[node], "{text}");
                }
            }
        }
        is_known
    }

    #[test]
    fn a_record_that_differs_in_its_scalars_alone_is_known() {
        let mut layouts = Layouts::default();
        let first = r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"x":[1,{"y":null}],"longer_than_eight_bytes":"z"} "#;
        assert!(!is_known(&mut layouts, first));
        for next in [
            r#"{"id":"","ts":-2.5e3,"pos":{"lat":7,"lon":"north"},"x":["é",{"y":true}],"longer_than_eight_bytes":1} "#,
            r#"{"id":"\"😀\\","ts":null,"pos":{"lat":"","lon":0},"x":[-0,{"y":"\u0041"}],"longer_than_eight_bytes":[]} "#,
        ] {
            assert_eq!(is_known(&mut layouts, next), !next.contains("[]"), "{next}");
        }
    }

    #[test]
    fn what_differs_in_more_than_a_scalar_is_scanned_and_told_as_ever() {
        let first = r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#;
        for next in [
            r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"} "#,
            r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}}"#,
            r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z""#,
            r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_nine_bytes!":"z"}"#,
            r#"{"id":"a","ts":1,"pos":{"lat":0.5,"lat":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a","ts":01,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a","ts":1e,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a","ts":{},"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a","ts":,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a,"ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"\x","ts":1,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"a","ts":1e999,"pos":{"lat":0.5,"lon":-1},"longer_than_eight_bytes":"z"}"#,
            r#"{"id":"#,
            // Zeros are what a copy of a record's end has behind it.
            "{\"id\":\"a\",\"ts\":1,\"pos\":{\"lat\":0.5,\"lon\":-1},\"longer_than_eight_bytes\":\"z\0}",
            "{\"id\":\"a\",\"ts\":1,\"pos\":{\"lat\":0.5,\"lon\":-1\0,\"longer_than_eight_bytes\":\"z\"}",
            "",
        ] {
            // Near the end, and with a window behind every byte.
            for behind in ["".to_owned(), " ".repeat(WINDOW)] {
                let mut layouts = Layouts::default();
                is_known(&mut layouts, &format!("{first}{behind}"));
                let next = format!("{next}{behind}");
                assert!(!is_known(&mut layouts, &next), "{next}");
            }
        }
    }

    /// Scalars at the borders of what is looked at without asking for the document's end, and odd bytes at theirs.
    #[test]
    fn at_the_borders_of_a_window_records_are_read_as_one_by_one() {
        let strings = [13, 14, 15, 16, 17, 30, 31, 32, 33, 48, 50].map(|len| "x".repeat(len));
        let with_odd = strings.iter().flat_map(|text| {
            let places = [0, 1, 14, 15, 16, 17, 30, 31, 32].into_iter();
            places.filter(|at| *at < text.len()).flat_map(move |at| {
                ["\"", "\\", "\\n", "\u{1f}", "é"]
                    .map(|odd| format!("{}{odd}{}", &text[..at], &text[at + 1..]))
            })
        });
        let strings = strings.iter().cloned().chain(with_odd);
        let strings = strings.map(|text| format!("\"{text}\""));
        let digits = "12345678901234567890";
        let numbers = (13..19).flat_map(|len| {
            let digits = &digits[..len];
            let pointed = (1..len).map(move |at| format!("{}.{}", &digits[..at], &digits[at..]));
            let odd = ["e", "E5", ".", "x", "-", " 1"].map(|odd| format!("{digits}{odd}"));
            pointed.chain(odd).chain([digits.to_owned()])
        });
        let numbers = numbers.flat_map(|number| [format!("-{number}"), number]);
        let scalars: Vec<String> = strings.chain(numbers).collect();
        for spaces in 0..30 {
            for behind in [0, 1, WINDOW] {
                let record = |scalar: &str| {
                    let (before, behind) = (" ".repeat(spaces), " ".repeat(behind));
                    format!("{{{before}\"id\":{scalar},\"ts\":1}}{behind}")
                };
                let mut layouts = Layouts::default();
                assert!(!is_known(&mut layouts, &record("0")));
                for scalar in &scalars {
                    is_known(&mut layouts, &record(scalar));
                }
                assert_eq!(layouts.known.len(), 1);
                assert!(is_known(&mut layouts, &record(&scalars[0])));
            }
        }
    }

    #[test]
    fn layouts_in_turn_are_all_known_and_a_new_one_replaces_one_that_is_met_no_more() {
        let record =
            |layout: usize, scalar: usize| format!("{{\"ts\":{scalar},\"x{layout}\":{scalar}}}");
        let mut layouts = Layouts::default();
        let mut known = |which: std::ops::Range<usize>, rounds: usize| {
            (0..rounds)
                .flat_map(|round| which.clone().map(move |layout| (layout, round)))
                .filter(|(layout, round)| is_known(&mut layouts, &record(*layout, *round)))
                .count()
        };
        assert_eq!(known(0..KEPT, 10), KEPT * 9);
        assert!(known(7..7 + KEPT, 200) > KEPT * 100);
    }

    fn document() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            prop::sample::select(vec!["null", "true", "0", "-1.5", "2e3", "\"\"", "\"a\\n\""])
                .prop_map(str::to_owned),
            any::<i32>().prop_map(|n| n.to_string()),
            "\"[a-z é,:{}]{0,12}\"",
        ];
        let value = prop_oneof![
            6 => scalar.clone(),
            1 => scalar.clone().prop_map(|inner| format!("[{inner}]")),
            1 => scalar.clone().prop_map(|inner| format!("{{\"lat\":{inner}}}")),
        ];
        let name =
            || prop::sample::select(vec!["id", "ts", "pos", "a", "b", "longer_than_eight_bytes"]);
        prop::collection::vec((name(), value, prop::sample::select(vec!["", " "])), 0..5).prop_map(
            |members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value, space)| format!("\"{name}\":{space}{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn records_in_a_row_are_read_as_one_by_one(
            documents in prop::collection::vec(
                (document(), any::<prop::sample::Index>(), 0..6_u8, prop::sample::select(&b"{}[]:,\" 01.-e\\n"[..])), 1..30),
            behind in prop::sample::select(vec![0, WINDOW]),
        ) {
            let mut layouts = Layouts::default();
            for (document, at, what, byte) in documents {
                let behind = " ".repeat(behind);
                is_known(&mut layouts, &format!("{document}{behind}"));
                let mut text = document;
                let at = at.index(text.len());
                if text.as_bytes()[at].is_ascii() && what < 3 {
                    text.remove(at);
                    if what < 2 {
                        text.insert(at, char::from(byte));
                    }
                }
                is_known(&mut layouts, &format!("{text}{behind}"));
            }
        }
    }
}
