//! Where the bytes that matter to JSON's grammar stand in a document: one bit per byte, sixteen bytes at a time.
//!
//! The first stage of simdjson (Langdale and Lemire, "Parsing gigabytes of JSON per second", VLDB 2019), without what a
//! telemetry record has no use for: a document with an escape or a control character gets no marks, and is left to the
//! [`Scanner`](super::Scanner).

use wide::u8x16;

const BLOCK: usize = 64;
const LANE: usize = 16;

/// The marks of a document of at most 64 × `WORDS` bytes.
pub(crate) struct Marks<const WORDS: usize> {
    tokens: [u64; WORDS],
    digits: [u64; WORDS],
}

/// Of 64 bytes.
#[derive(Default)]
struct Block {
    quotes: u64,
    /// Brackets, braces, colons and commas, those inside of strings too.
    structure: u64,
    digits: u64,
    /// Backslashes and control characters.
    odd: u64,
}

impl Block {
    #[inline(always)]
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let mut block = Self::default();
        for lane in 0..BLOCK / LANE {
            let bytes: [u8; LANE] = bytes[lane * LANE..][..LANE]
                .try_into()
                .expect("a lane of a block");
            let bytes = u8x16::from(bytes);
            let is = |byte: u8| bytes.cmp_eq(u8x16::splat(byte));
            // The two brackets differ from the two braces in this bit, and nothing else becomes either by it.
            let folded = bytes | u8x16::splat(b'{' ^ b'[');
            let folded_is = |byte: u8| folded.cmp_eq(u8x16::splat(byte));
            let at_most = |what: u8x16, most: u8| what.min(u8x16::splat(most)).cmp_eq(what);
            let structure = folded_is(b'{') | folded_is(b'}') | is(b':') | is(b',');
            let odd = is(b'\\') | at_most(bytes, 0x1f);
            let digits = at_most(bytes - u8x16::splat(b'0'), 9);
            let mask = |found: u8x16| u64::from(found.move_mask() as u16) << (lane * LANE);
            block.quotes |= mask(is(b'"'));
            block.structure |= mask(structure);
            block.digits |= mask(digits);
            block.odd |= mask(odd);
        }
        block
    }
}

/// Each bit: whether the bits up to it, itself included, are odd in number.
#[inline(always)]
const fn parity(mut bits: u64) -> u64 {
    let mut by = 1;
    while by < 64 {
        bits ^= bits << by;
        by *= 2;
    }
    bits
}

impl<const WORDS: usize> Marks<WORDS> {
    /// How long a document may be.
    pub(crate) const BYTES_MAX: usize = WORDS * BLOCK;

    /// The marks of a document; `None` where it holds a backslash or a control character (a line feed is one), or ends
    /// inside of a string.
    ///
    /// # Panics
    /// If the document is longer than [`Self::BYTES_MAX`].
    #[inline(always)]
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut marks = Self {
            tokens: [0; WORDS],
            digits: [0; WORDS],
        };
        let (mut inside, mut odd) = (0_u64, 0);
        let mut mark = |word: usize, bytes: &[u8; BLOCK]| {
            let block = Block::of(bytes);
            odd |= block.odd;
            // From each opening quote up to before its closing one; all ones or all zeros carry over the border.
            let strings = parity(block.quotes) ^ inside;
            inside = (strings.cast_signed() >> 63).cast_unsigned();
            marks.tokens[word] = block.quotes | (block.structure & !strings);
            marks.digits[word] = block.digits;
        };
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for (word, block) in blocks.iter().enumerate() {
            mark(word, block);
        }
        if !rest.is_empty() {
            let mut block = [b' '; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            mark(blocks.len(), &block);
        }
        (odd == 0 && inside == 0).then_some(marks)
    }

    /// The tokens from the first on: quotes, and what is structure outside of strings.
    #[inline(always)]
    pub(crate) const fn tokens(&self) -> Tokens<'_> {
        Tokens {
            words: &self.tokens,
            base: 0,
            bits: self.tokens[0],
        }
    }

    /// Bit n: whether byte `from` + n is a digit; of the 64 bytes from `from` on, zeros beyond the document.
    #[inline(always)]
    pub(crate) fn digits(&self, from: usize) -> u64 {
        let (word, by) = (from / BLOCK, from % BLOCK);
        let low = self.digits[word] >> by;
        let high = self.digits.get(word + 1).copied().unwrap_or(0);
        // In two steps, as a shift by 64 is none.
        low | (high << 1 << (BLOCK - 1 - by))
    }
}

/// Goes over the tokens of a document in order.
pub(crate) struct Tokens<'m> {
    words: &'m [u64],
    /// The place of the first bit of the word at hand.
    base: usize,
    /// Its tokens that are still to come.
    bits: u64,
}

impl Tokens<'_> {
    /// The place of the next token; past the last one, a place beyond every document.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> usize {
        while self.bits == 0 {
            self.base += BLOCK;
            match self.words.get(self.base / BLOCK) {
                Some(bits) => self.bits = *bits,
                None => return usize::MAX / 2,
            }
        }
        let place = self.base + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte.
    fn plain(bytes: &[u8]) -> Option<Vec<usize>> {
        if bytes.iter().any(|byte| *byte == b'\\' || *byte < 0x20) {
            return None;
        }
        let mut inside = false;
        let mut tokens = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == b'"' {
                inside = !inside;
                tokens.push(at);
            } else if !inside && b"{}[]:,".contains(byte) {
                tokens.push(at);
            }
        }
        (!inside).then_some(tokens)
    }

    fn same_as_byte_by_byte(bytes: &[u8]) {
        let marks = Marks::<4>::of(bytes);
        let found = marks.as_ref().map(|marks| {
            let mut tokens = marks.tokens();
            std::iter::from_fn(|| Some(tokens.next()).filter(|at| *at < bytes.len())).collect()
        });
        assert_eq!(found, plain(bytes), "{}", String::from_utf8_lossy(bytes));
        for from in 0..marks.as_ref().map_or(0, |_| bytes.len()) {
            let digits = marks.as_ref().unwrap().digits(from);
            for bit in 0..64 {
                let is_digit = bytes.get(from + bit).is_some_and(u8::is_ascii_digit);
                assert_eq!(digits >> bit & 1 == 1, is_digit, "{from} + {bit}");
            }
        }
    }

    #[test]
    fn every_byte_is_marked_as_byte_by_byte() {
        for byte in 0..=255 {
            same_as_byte_by_byte(&[byte]);
            same_as_byte_by_byte(&[b'"', byte, b'"', byte]);
        }
    }

    #[test]
    fn strings_go_on_over_the_borders_of_blocks() {
        for len in 0..=254 {
            let text = format!("\"{}\",", "7".repeat(len));
            same_as_byte_by_byte(&text.as_bytes()[..text.len().min(256)]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_marked_as_byte_by_byte(
            bytes in prop::collection::vec(prop_oneof![
                8 => prop::sample::select(&b"{}[]:,\"0123456789.-eax \xc3\xa9"[..]),
                1 => any::<u8>().prop_map(|byte| byte | 0x20),
            ], 0..=256),
        ) {
            same_as_byte_by_byte(&bytes);
        }
    }
}
