//! A world to watch Ringfence with: a seeded fleet that drives through zones whose borders move. Pure: time is an
//! argument, the records are values, and the same seed gives the same world.
//!
//! The zones named `jigsaw-…` tile an area. Their corners lie on even, the fleet's positions on odd multiples of 1e-6
//! degrees and all borders run along meridians and parallels, so no position ever lies on a border: each is in exactly
//! one of them. A border moves by changing both its zones at one `effective_at`, so that holds at every instant.

mod fleet;
mod jigsaw;
mod rng;

pub use fleet::{Emission, EventBuffer, Fleet, FleetRules};
pub use jigsaw::{Jigsaw, ZoneRecord};
pub use rng::Rng;

/// Millionths of a degree: the lattice that the world is made on.
type Micro = i64;

/// The south-western corner of the area: Austin, as in the real data beside it.
const WEST: Micro = -98_000_000;
const SOUTH: Micro = 30_000_000;

/// Writes millionths of a degree as a decimal number of degrees.
fn push_degrees(out: &mut Vec<u8>, micro: Micro) {
    if micro < 0 {
        out.push(b'-');
    }
    let micro = micro.unsigned_abs();
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(micro / 1_000_000).as_bytes());
    out.push(b'.');
    let fraction = micro % 1_000_000;
    let text = digits.format(fraction + 1_000_000); // keeps the leading zeros
    out.extend_from_slice(&text.as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_written_exactly() {
        for (micro, text) in [
            (0, "0.000000"),
            (-97_900_001, "-97.900001"),
            (5, "0.000005"),
            (-5, "-0.000005"),
        ] {
            let mut out = Vec::new();
            push_degrees(&mut out, micro);
            assert_eq!(out, text.as_bytes());
        }
    }
}
