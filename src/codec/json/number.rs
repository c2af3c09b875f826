//! Numbers: judging them, and reading the short ones.

use wide::u8x16;

use super::{JsonError, JsonFault, Kind, WINDOW, sixteen_at, sixteen_in};

/// The number that starts at `start`, with a sign or a digit: its kind, and the byte after it.
#[inline(always)]
pub(super) fn number_at(text: &str, start: usize) -> Result<(Kind, usize), JsonError> {
    let bytes = text.as_bytes();
    let first = start + usize::from(bytes[start] == b'-');
    short_number_at(bytes, first).map_or_else(|| any_number_at(text, start, first), Ok)
}

/// The number whose first digit is at `first`, where sixteen bytes tell all of it and nothing is odd about it.
#[inline(always)]
fn short_number_at(bytes: &[u8], first: usize) -> Option<(Kind, usize)> {
    let chunk = sixteen_at(bytes, first)?;
    let (kind, len) = plain_number(chunk, |digits| bytes[first + digits])?;
    Some((kind, first + len))
}

/// As [`short_number_at`], of a window, with the first digit at its byte 32 at most.
#[inline(always)]
pub(super) fn plain_in(window: &[u8; WINDOW], first: usize) -> Option<(Kind, usize)> {
    let chunk = sixteen_in(window, first);
    let (kind, len) = plain_number(chunk, |digits| window[(first + digits) % WINDOW])?;
    Some((kind, first + len))
}

/// The number that these sixteen bytes begin with, and its length; `byte` gives one of them.
#[inline(always)]
fn plain_number(chunk: u8x16, byte: impl Fn(usize) -> u8) -> Option<(Kind, usize)> {
    let others = others_than_digits(chunk);
    let integer = others.trailing_zeros() as usize;
    let is_integer = integer == 1 || (integer > 1 && byte(0) != b'0');
    if !is_integer || integer == 16 {
        return None;
    }
    let (kind, len) = if byte(integer) == b'.' {
        let len = (others & (others - 1)).trailing_zeros() as usize;
        if len == integer + 1 {
            return None;
        }
        (Kind::Float, len)
    } else {
        (Kind::Integer, integer)
    };
    let is_whole = len < 16 && !matches!(byte(len), b'e' | b'E');
    is_whole.then_some((kind, len))
}

/// As [`number_at`], for every number.
#[inline(never)]
fn any_number_at(text: &str, start: usize, first: usize) -> Result<(Kind, usize), JsonError> {
    let bytes = text.as_bytes();
    let integer_end = match bytes.get(first) {
        Some(b'0') => first + 1,
        Some(b'1'..=b'9') => digits_end(bytes, first + 1),
        _ => return Err(JsonError::new(JsonFault::Digit, first)),
    };
    let (kind, end) = match bytes.get(integer_end) {
        Some(b'.') => (Kind::Float, some_digits_end(bytes, integer_end + 1)?),
        // Only behind a zero.
        Some(b'0'..=b'9') => return Err(JsonError::new(JsonFault::LeadingZero, integer_end)),
        _ => (Kind::Integer, integer_end),
    };
    // Below 300 digits and without an exponent nothing comes near 1.8e308, so only the rare rest is computed.
    if matches!(bytes.get(end), Some(b'e' | b'E')) || integer_end - start > 300 {
        return odd_number_end(text, start, end, kind);
    }
    Ok((kind, end))
}

/// The value of a number of any length; `None` of one that no 64-bit float holds.
///
/// The standard library stops counting an exponent at 65,536, so a number with as many digits may be another one to it
/// than it is. `serde_json` decides what is one of these, as it is the one to agree with.
pub(crate) fn number(text: &str) -> Option<f64> {
    const STD_MAX: usize = 10_000;
    let read = if text.len() <= STD_MAX {
        text.parse().ok()
    } else {
        serde_json::from_str(text).ok()
    };
    read.filter(|number: &f64| number.is_finite())
}

/// Goes on in a number that may be too large, at `end` of its digits and its fraction.
#[inline(never)]
fn odd_number_end(
    text: &str,
    start: usize,
    mut end: usize,
    mut kind: Kind,
) -> Result<(Kind, usize), JsonError> {
    let bytes = text.as_bytes();
    if let Some(b'e' | b'E') = bytes.get(end) {
        kind = Kind::Float;
        let is_signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = some_digits_end(bytes, end + 1 + usize::from(is_signed))?;
    }
    if number(&text[start..end]).is_none() {
        return Err(JsonError::new(JsonFault::NumberRange, start));
    }
    Ok((kind, end))
}

#[inline(always)]
fn some_digits_end(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let end = digits_end(bytes, at);
    if end == at {
        Err(JsonError::new(JsonFault::Digit, at))
    } else {
        Ok(end)
    }
}

/// The digits from `first` on without their point as one number, how many stand behind the point, and the byte after them;
/// where sixteen bytes hold them and what follows, and no more than seven stand before a point.
#[inline(always)]
fn short_decimal(bytes: &[u8], first: usize) -> Option<(u64, usize, usize)> {
    let chunk = sixteen_at(bytes, first)?;
    let others = others_than_digits(chunk);
    let integer = others.trailing_zeros() as usize;
    let values = u128::from_le_bytes(chunk.to_array()) ^ (u128::MAX / 255 * b'0' as u128);
    // By words: shifts of 128 bits by a variable are told apart at 64.
    let (mut low, mut high) = (values as u64, (values >> 64) as u64);
    let (mut count, mut len) = (integer, integer);
    if bytes.get(first + integer) == Some(&b'.') {
        if integer >= 8 {
            return None;
        }
        len = (others & (others - 1)).trailing_zeros() as usize;
        count = len - 1;
        // The digits behind the point move to its place.
        let before = (1 << (8 * integer)) - 1;
        low = (low & before) | ((low >> 8) & !before) | high << 56;
        high >>= 8;
    }
    // The last digit becomes the last of eight or sixteen, and zeros stand before the first.
    let whole = match count {
        _ if len >= 16 => return None,
        1..=8 => eight_digits(low << (64 - 8 * count)),
        9..=15 => {
            let shift = 8 * (16 - count);
            let (high, low) = (high << shift | low >> (64 - shift), low << shift);
            eight_digits(low) * 100_000_000 + eight_digits(high)
        }
        _ => return None,
    };
    Some((whole, count - integer, first + len))
}

/// As [`short_decimal`], for up to nineteen bytes wherever they stand.
#[inline(never)]
fn any_decimal(bytes: &[u8], first: usize) -> Option<(u64, usize, usize)> {
    let integer_end = digits_end(bytes, first);
    let mut whole = digits(bytes, first, integer_end);
    let (mut end, mut decimals) = (integer_end, 0);
    if bytes.get(integer_end) == Some(&b'.') {
        end = digits_end(bytes, integer_end + 1);
        decimals = end - integer_end - 1;
        let scale = *WHOLE_POWERS_OF_TEN.get(decimals)?;
        let fraction = digits(bytes, integer_end + 1, end);
        whole = whole.wrapping_mul(scale).wrapping_add(fraction);
    }
    // Nineteen digits do not wrap.
    (end > first && end - first <= 19).then_some((whole, decimals, end))
}

/// Those that a number of nineteen bytes can ask for.
const POWERS_OF_TEN: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// The same in whole numbers.
const WHOLE_POWERS_OF_TEN: [u64; 19] = {
    let mut powers = [1; 19];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = 10 * powers[at - 1];
        at += 1;
    }
    powers
};

/// Each byte one, and each byte its highest bit.
const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// The first byte from `at` on that is no digit, or the end. Eight bytes at a time: byte by byte the end of each number was
/// a branch that nothing foretells.
#[inline(always)]
fn digits_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("a slice of eight bytes"));
        // Digits become 0 to 9. What is above 9 gets its high bit by the sum, which carries into no other byte.
        let value = word ^ (ONES * u64::from(b'0'));
        let marks = (((value & !HIGH) + ONES * (0x80 - 10)) | value) & HIGH;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The number that the digits from `from` to `to` are, wrapped beyond nineteen of them. Eight at a time.
#[inline]
fn digits(bytes: &[u8], from: usize, to: usize) -> u64 {
    let mut number = 0_u64;
    let mut at = from;
    while at < to {
        let count = (to - at).min(8);
        let end = at + count;
        // The eight bytes that end there, those before the digits made zeros.
        let word = match end.checked_sub(8).and_then(|start| bytes.get(start..end)) {
            Some(chunk) => {
                let word = u64::from_le_bytes(chunk.try_into().expect("a slice of eight bytes"));
                (word ^ (ONES * u64::from(b'0'))) & (u64::MAX << (64 - 8 * count))
            }
            None => bytes[at..end]
                .iter()
                .fold(0, |word, digit| word >> 8 | u64::from(digit - b'0') << 56),
        };
        let scale = WHOLE_POWERS_OF_TEN[count];
        number = number.wrapping_mul(scale).wrapping_add(eight_digits(word));
        at = end;
    }
    number
}

/// The number of eight digits 0 to 9, a byte each, the first one lowest: neighbours are joined three times (Langdale and Lemire,
/// "Parsing gigabytes of JSON per second", VLDB Journal 28, 2019, section 3.1.3).
#[inline]
const fn eight_digits(word: u64) -> u64 {
    let twos = (word.wrapping_mul(10 * 256 + 1) >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = (twos.wrapping_mul(100 * 65_536 + 1) >> 16) & 0x0000_FFFF_0000_FFFF;
    fours.wrapping_mul(10_000 * (1 << 32) + 1) >> 32
}

/// A bit for each byte that is no digit; the bits from the sixteenth on are set.
#[inline(always)]
fn others_than_digits(chunk: u8x16) -> u32 {
    let value = chunk - u8x16::splat(b'0');
    !(value.min(u8x16::splat(9)).cmp_eq(value).move_mask() as u32)
}

/// The number at `at` as [`super::Scanner::take_decimal`] reads it, and the byte after it.
#[inline(always)]
pub(super) fn decimal_at(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let is_negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(is_negative);
    let (whole, decimals, end) =
        short_decimal(bytes, first).or_else(|| any_decimal(bytes, first))?;
    if whole > 1 << 53 || matches!(bytes.get(end), Some(b'e' | b'E')) {
        return None;
    }
    let number = whole as f64 / POWERS_OF_TEN[decimals];
    Some((if is_negative { -number } else { number }, end))
}

/// The integer at `at` as [`super::Scanner::take_short_integer`] reads it, and the byte after it.
#[inline]
pub(super) fn short_integer_at(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let is_negative = bytes.get(at) == Some(&b'-');
    let (whole, 0, end) = short_decimal(bytes, at + usize::from(is_negative))? else {
        return None;
    };
    // No sixteen digits come near the sign bit.
    let whole = whole as i64;
    Some((if is_negative { -whole } else { whole }, end))
}
