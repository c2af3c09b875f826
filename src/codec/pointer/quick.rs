//! The quick way over a document: from token to token by its [`Marks`], where the scanner goes from byte to byte.
//!
//! It judges nothing: what it passes is valid JSON without a doubt, and whatever it is not sure of (errors, escapes, control
//! characters, members named twice, arrays on the way to a place, deep nesting, very long documents) is left to the scanner,
//! from the start. So both can only ever agree, which a property test holds them to.

use super::{Kind, Paths, Scanned, Slot};
use crate::codec::json::Scanner;
use crate::codec::json::marks::{Marks, Tokens};

/// How many containers may be open at once; far below [`DEPTH_LIMIT`](crate::codec::json::DEPTH_LIMIT), one bit each.
const DEPTH_MAX: u32 = 60;
/// How long a number may be: its digits are looked at by their bits, at most 64.
const NUMBER_MAX: usize = 40;

/// Scans as [`Paths::scan`] does; `None` where the scanner has to, `slots` are as they may be then.
#[inline]
pub(super) fn scan(paths: &Paths, text: &str, slots: &mut [Option<Slot>]) -> Option<Scanned> {
    // Room for the usual record, and for the largest that is worth it: it is cleared anew for each.
    if text.len() <= Marks::<16>::BYTES_MAX {
        scan_by::<16>(paths, text, slots)
    } else if text.len() <= Marks::<128>::BYTES_MAX {
        scan_by::<128>(paths, text, slots)
    } else {
        None
    }
}

fn scan_by<const WORDS: usize>(
    paths: &Paths,
    text: &str,
    slots: &mut [Option<Slot>],
) -> Option<Scanned> {
    let marks = Marks::<WORDS>::of(text.as_bytes())?;
    let mut walk = Walk {
        paths,
        bytes: text.as_bytes(),
        text,
        marks: &marks,
        tokens: marks.tokens(),
        slots,
    };
    let open = walk.tokens.next();
    if walk.byte(open) != b'{' {
        return None;
    }
    walk.only_space(0, open)?;
    let (empty, close) = walk.object(0, open, 0)?;
    walk.only_space(close + 1, text.len())?;
    Some(Scanned {
        kind: Kind::Object,
        duplicate: None,
        close,
        empty,
    })
}

struct Walk<'d, const WORDS: usize> {
    paths: &'d Paths,
    bytes: &'d [u8],
    text: &'d str,
    marks: &'d Marks<WORDS>,
    tokens: Tokens<'d>,
    slots: &'d mut [Option<Slot>],
}

/// A value, and the token behind it.
struct Passed {
    kind: Kind,
    start: usize,
    end: usize,
    after: usize,
}

impl<const WORDS: usize> Walk<'_, WORDS> {
    /// The byte of a token; past the last token none that the grammar knows.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// There is no other space than this: the rest are control characters.
    #[inline(always)]
    fn only_space(&self, from: usize, to: usize) -> Option<()> {
        if from == to {
            return Some(());
        }
        self.is_space(from, to).then_some(())
    }

    #[inline(never)]
    fn is_space(&self, from: usize, to: usize) -> bool {
        let gap = self.bytes.get(from..to);
        gap.is_some_and(|gap| gap.iter().all(|byte| *byte == b' '))
    }

    /// Passes an object of interest, from its opening brace on; whether it is empty, and where its closing brace stands.
    fn object(&mut self, node: usize, open: usize, depth: u32) -> Option<(bool, usize)> {
        if depth >= DEPTH_MAX {
            return None;
        }
        let mut before = open;
        let mut quote = self.tokens.next();
        if self.byte(quote) == b'}' {
            self.only_space(before + 1, quote)?;
            return Some((true, quote));
        }
        loop {
            let (close, colon) = self.name(before, quote)?;
            let name = self.bytes.get(quote + 1..close)?;
            let after = match self.paths.child_of(node, name) {
                None => self.value(colon, depth + 1)?.after,
                Some(child) => self.place(child, colon, depth + 1)?,
            };
            match self.byte(after) {
                b',' => (before, quote) = (after, self.tokens.next()),
                b'}' => return Some((false, after)),
                _ => return None,
            }
        }
    }

    /// Passes a member's name, whose first quote was passed, and its colon: where its last quote and the colon stand.
    #[inline(always)]
    fn name(&mut self, before: usize, quote: usize) -> Option<(usize, usize)> {
        let close = self.tokens.next();
        let colon = self.tokens.next();
        if self.byte(quote) != b'"' || self.byte(colon) != b':' {
            return None;
        }
        self.only_space(before + 1, quote)?;
        self.only_space(close + 1, colon)?;
        Some((close, colon))
    }

    /// Passes a value of interest and notes where it stands; gives the token behind it.
    fn place(&mut self, node: usize, before: usize, depth: u32) -> Option<usize> {
        let passed = if self.paths.nodes[node].children.is_empty() {
            self.value(before, depth)?
        } else {
            // Names inside of it are wanted: nothing but an object has some.
            let open = self.tokens.next();
            if self.byte(open) != b'{' {
                return None;
            }
            self.only_space(before + 1, open)?;
            let (_, close) = self.object(node, open, depth)?;
            self.behind(Kind::Object, open, close)?
        };
        let slot = &mut self.slots[node];
        if slot.is_some() {
            return None;
        }
        *slot = Some(Slot {
            start: passed.start as u32,
            end: passed.end as u32,
            kind: passed.kind,
        });
        Some(passed.after)
    }

    /// A value whose last token was passed, with the token behind it.
    #[inline(always)]
    fn behind(&mut self, kind: Kind, start: usize, last: usize) -> Option<Passed> {
        let after = self.tokens.next();
        self.only_space(last + 1, after)?;
        Some(Passed {
            kind,
            start,
            end: last + 1,
            after,
        })
    }

    /// Passes the value behind the token at `before`.
    #[inline(always)]
    fn value(&mut self, before: usize, depth: u32) -> Option<Passed> {
        let token = self.tokens.next();
        match self.byte(token) {
            b'"' => {
                self.only_space(before + 1, token)?;
                let close = self.tokens.next();
                self.behind(Kind::String, token, close)
            }
            b',' | b'}' | b']' => self.scalar(before, token),
            open @ (b'{' | b'[') => {
                self.only_space(before + 1, token)?;
                let close = self.container(token, depth)?;
                let kind = if open == b'{' {
                    Kind::Object
                } else {
                    Kind::Array
                };
                self.behind(kind, token, close)
            }
            _ => None,
        }
    }

    /// A number or a word between two tokens.
    #[inline(always)]
    fn scalar(&self, before: usize, after: usize) -> Option<Passed> {
        let (mut start, mut end) = (before + 1, after);
        while start < end && self.bytes[start] == b' ' {
            start += 1;
        }
        while start < end && self.bytes[end - 1] == b' ' {
            end -= 1;
        }
        let text = &self.bytes[start..end];
        let kind = match text.first()? {
            b'-' | b'0'..=b'9' => self.number(start, text)?,
            b't' if text == b"true" => Kind::True,
            b'f' if text == b"false" => Kind::False,
            b'n' if text == b"null" => Kind::Null,
            _ => return None,
        };
        Some(Passed {
            kind,
            start,
            end,
            after,
        })
    }

    #[inline(always)]
    fn number(&self, start: usize, text: &[u8]) -> Option<Kind> {
        let len = text.len();
        if len > NUMBER_MAX {
            return None;
        }
        let sign = usize::from(text[0] == b'-');
        let others = !self.marks.digits(start) & ((1 << len) - 1) & !(sign as u64);
        let leads_zero = text.get(sign) == Some(&b'0');
        if others == 0 {
            let is_one = len > sign && (!leads_zero || len == sign + 1);
            return is_one.then_some(Kind::Integer);
        }
        let first = others.trailing_zeros() as usize;
        let is_plain = others & (others - 1) == 0
            && text[first] == b'.'
            && first > sign
            && first + 1 < len
            && (!leads_zero || first == sign + 1);
        if is_plain {
            return Some(Kind::Float);
        }
        let mut scanner = Scanner::from(self.text, start);
        let kind = scanner.skip_value(0).ok()?;
        (scanner.at() == start + len).then_some(kind)
    }

    /// Passes an array or object with all in it, from its opening token on; where its closing token stands.
    #[inline(never)]
    fn container(&mut self, open: usize, depth: u32) -> Option<usize> {
        // One bit per open container tells which it is.
        let mut objects = u64::from(self.byte(open) == b'{');
        let mut count = 1;
        let mut before = open;
        let mut is_new = true;
        loop {
            if depth + count > DEPTH_MAX {
                return None;
            }
            let in_object = objects & 1 == 1;
            let mut after = self.tokens.next();
            if is_new && self.byte(after) == if in_object { b'}' } else { b']' } {
                self.only_space(before + 1, after)?;
            } else {
                let mut token = after;
                if in_object {
                    before = self.name(before, token)?.1;
                    token = self.tokens.next();
                }
                match self.byte(token) {
                    inner @ (b'{' | b'[') => {
                        self.only_space(before + 1, token)?;
                        objects = objects << 1 | u64::from(inner == b'{');
                        count += 1;
                        before = token;
                        is_new = true;
                        continue;
                    }
                    b'"' => {
                        self.only_space(before + 1, token)?;
                        let close = self.tokens.next();
                        after = self.behind(Kind::String, token, close)?.after;
                    }
                    b',' | b'}' | b']' => after = self.scalar(before, token)?.after,
                    _ => return None,
                }
            }
            // Close what closes, until the next value begins.
            loop {
                match (self.byte(after), objects & 1 == 1) {
                    (b',', _) => break,
                    (b'}', true) | (b']', false) => {}
                    _ => return None,
                }
                count -= 1;
                if count == 0 {
                    return Some(after);
                }
                objects >>= 1;
                before = after;
                after = self.tokens.next();
                self.only_space(before + 1, after)?;
            }
            before = after;
            is_new = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::pointer::Pointer;

    const POINTERS: [&str; 6] = [
        "/id",
        "/ts",
        "/pos/lat",
        "/pos/lon",
        "/a/0",
        "/longer_than_eight",
    ];

    fn paths() -> Paths {
        let mut paths = Paths::new();
        for pointer in POINTERS {
            paths.add(&Pointer::parse(pointer).unwrap());
        }
        paths
    }

    /// Whether the quick way took it; it must not differ from the scanner then.
    fn is_taken(text: &str) -> bool {
        let paths = paths();
        let mut quick = vec![None; paths.slot_count()];
        let Some(scanned) = scan(&paths, text, &mut quick) else {
            return false;
        };
        let mut slow = vec![None; paths.slot_count()];
        assert_eq!(paths.scan_slowly(text, &mut slow), Ok(scanned), "{text}");
        assert_eq!(quick, slow, "{text}");
        true
    }

    #[test]
    fn what_records_are_made_of_is_taken() {
        for text in [
            "{}",
            " { } ",
            r#"{"id":"a","ts":1,"pos":{"lat":-0.5,"lon":0}}"#,
            r#"{ "id" : "a é😀", "ts" : 10 , "pos" : { "lat" : 1.25 , "lon" : -7 } } "#,
            r#"{"x":[],"y":[[1,-2.0,"a"],{"b":{},"c":[{"d":null}]}],"z":true,"ts":false}"#,
            r#"{"longer_than_eight":1e5,"longer_than_nine":-1.5E-3}"#,
            &format!(r#"{{"x":"{}","ts":1}}"#, "y".repeat(1_500)),
        ] {
            assert!(is_taken(text), "{text}");
        }
    }

    #[test]
    fn what_it_is_not_sure_of_is_left_to_the_scanner() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(60), "]".repeat(60));
        let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(9_000));
        for text in [
            "",
            "1",
            "[]",
            "{",
            "{}}",
            "{}x",
            "x{}",
            "{}\n",
            r#"{"a":"\n"}"#,
            r#"{"ts":1,"ts":2}"#,
            r#"{"a":[1]}"#,
            r#"{"pos":1}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":1:2}"#,
            r#"{"a":tru}"#,
            r#"{"a":"b" c}"#,
            r#"{"x":[1,]}"#,
            r#"{"x":[1}]"#,
            r#"{"x":[,1]}"#,
            r#"{"x":01}"#,
            r#"{"x":-}"#,
            r#"{"x":1.}"#,
            r#"{"x":.1}"#,
            r#"{"x":-.1}"#,
            r#"{"x":1.2.3}"#,
            r#"{"x":1-2}"#,
            r#"{"x":1e999}"#,
            r#"{"x"}"#,
            r#"{"x":}"#,
            r#"{"x:1}"#,
            &deep,
            &long,
        ] {
            assert!(!is_taken(text), "{text}");
        }
    }

    fn document() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            4 => prop::sample::select(vec!["id", "ts", "pos", "lat", "lon", "a", "longer_than_eight"])
                .prop_map(str::to_owned),
            1 => "[a-z é:,{]{0,10}",
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            (-180.0..180.0).prop_map(|n: f64| n.to_string()),
            "-?[0-9]{1,3}(\\.[0-9]{0,3})?(e[+-]?[0-9]{1,2})?",
            "\"[a-z0-9 é😀:,{}\\[\\]]{0,40}\"",
        ];
        let space = || prop_oneof![4 => Just(""), 1 => Just(" ")];
        let value = leaf.prop_recursive(4, 40, 8, move |inner| {
            let item = (space(), inner.clone(), space()).prop_map(|(a, b, c)| [a, &b, c].concat());
            let member = (name.clone(), space(), inner, space())
                .prop_map(|(name, a, value, b)| format!("\"{name}\"{a}:{value}{b}"));
            prop_oneof![
                prop::collection::vec(item, 0..5)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(member, 0..8)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        });
        value.prop_map(|value| format!("{{\"pos\":{value},\"ts\":7}}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 3_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn documents_and_mutated_documents_are_read_as_the_scanner_reads_them(
            document in document(),
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(&b"{}[]:,\" 01.-e\\\nat"[..])),
                0..3),
        ) {
            is_taken(&document);
            let mut text = document;
            for (at, what, byte) in edits {
                let at = at.index(text.len() + 1);
                if !text.is_char_boundary(at) {
                    continue;
                }
                match what {
                    0 => text.insert(at, char::from(byte)),
                    _ if at < text.len() && text.as_bytes()[at].is_ascii() => {
                        text.remove(at);
                        if what == 1 {
                            text.insert(at, char::from(byte));
                        }
                    }
                    _ => {}
                }
                is_taken(&text);
            }
        }
    }
}
