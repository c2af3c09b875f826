//! The text of JSON strings: reading escapes, comparing after unescaping, writing.

/// A string's text between its quotes, as it stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RawString<'a> {
    /// The bytes between the quotes, a checked JSON string: escapes are valid and paired.
    pub raw: &'a str,
    /// Whether it holds an escape.
    pub escaped: bool,
}

impl RawString<'_> {
    /// Whether the string, after unescaping, is `wanted`.
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        if self.escaped {
            let mut wanted = wanted.chars();
            unescape(self.raw).all(|c| wanted.next() == Some(c)) && wanted.next().is_none()
        } else {
            self.raw == wanted
        }
    }
}

pub(super) fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)?)
    })
}

/// The characters of a checked string body (what stands between the quotes), escapes resolved.
pub fn unescape(raw: &str) -> impl Iterator<Item = char> + '_ {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let mut chars = rest.chars();
        let first = chars.next()?;
        if first != '\\' {
            rest = chars.as_str();
            return Some(first);
        }
        let escape = chars.next()?;
        let resolved = match escape {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = hex4(chars.as_str().as_bytes().get(..4)?)?;
                rest = chars.as_str().get(4..)?;
                if let 0xD800..=0xDBFF = high {
                    let low = hex4(rest.as_bytes().get(2..6)?)?;
                    rest = rest.get(6..)?;
                    return char::from_u32(
                        0x1_0000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00)?,
                    );
                }
                return char::from_u32(high);
            }
            same => same,
        };
        rest = chars.as_str();
        Some(resolved)
    })
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                out.push_str("\\u00");
                out.extend(char::from_digit(u32::from(c) >> 4, 16));
                out.extend(char::from_digit(u32::from(c) & 15, 16));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `text` as a JSON string, quotes included: the form in which zone ids are spliced.
#[must_use]
pub fn string(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out.into_boxed_str()
}
