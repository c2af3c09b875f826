//! Seeded random numbers: SplitMix64. Small, quick and the same everywhere.

/// A sequence of random numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number in [0, `below`); 0 where `below` is 0. The high half of a 128-bit product.
    pub const fn below(&mut self, below: u64) -> u64 {
        ((self.bits() as u128 * below as u128) >> 64) as u64
    }

    /// A number in [`from`, `to`].
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        let span = u64::try_from(to - from).expect("from ≤ to");
        from + i64::try_from(self.below(span + 1)).expect("within the span")
    }

    /// True once in 1 / `share` times.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are plenty for a chance"
    )]
    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && ((self.bits() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}
