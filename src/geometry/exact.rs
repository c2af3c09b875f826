//! Exact predicates on the cylinder of longitudes: never a wrong sign, whatever the rounding (DESIGN 5).
//!
//! A vertex keeps the longitude in [-180, 180) and, apart from it, how many times it went round: a sum of the two
//! is in general no `f64` (-60.1 + 360 is not), so it is never formed, only judged. Exact as long as not both a
//! longitude and a latitude of one computation are nearer to zero than 1e-279 degrees (the range of `f64` ends).

use std::cmp::Ordering;

use super::Position;

/// Scales degrees so that the products of a longitude and a latitude, one of them as small as `f64` can be, do not
/// underflow, and the largest does not overflow. A power of two: it changes no digit.
const SCALE: f64 = f64::from_bits((1023 + 490) << 52);

/// A vertex of an unwrapped ring: it stands at longitude `lon + 360 · turn`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Degrees east, in [-180, 180) for ring vertices; a query may also stand at 180.
    pub(super) lon: f64,
    /// How many times it is further round to the east.
    pub(super) turn: i32,
    /// Degrees north.
    pub(super) lat: f64,
}

impl Place {
    /// The place with its longitude brought into [-180, 180): exact for every longitude in [-180, 360], as the
    /// difference of two numbers within a factor of two is (Sterbenz).
    pub(super) fn of(at: Position) -> Self {
        // Adding zero turns -0.0 into 0.0, so that equal places have equal bits.
        let lat = at.lat + 0.0;
        if at.lon >= 180.0 {
            Self {
                lon: at.lon - 360.0 + 0.0,
                turn: 1,
                lat,
            }
        } else {
            Self {
                lon: at.lon + 0.0,
                turn: 0,
                lat,
            }
        }
    }

    /// The same place, `turns` further east.
    pub(super) fn turned(self, turns: i32) -> Self {
        Self {
            turn: self.turn + turns,
            ..self
        }
    }

    /// West to east, then south to north: the order in which the sweep meets places.
    pub(super) fn sweep_order(&self, other: &Self) -> Ordering {
        self.turn
            .cmp(&other.turn)
            .then(self.lon.total_cmp(&other.lon))
            .then(self.lat.total_cmp(&other.lat))
    }

    /// Whether both stand at one unwrapped longitude.
    pub(super) fn is_above_or_below(&self, other: &Self) -> bool {
        self.turn == other.turn && self.lon == other.lon
    }
}

/// On which side of the directed line `a` → `b` the place `p` lies: `Greater` left, `Less` right, `Equal` on it.
/// Where `a` is west of `b`, left is north.
pub(super) fn side(a: Place, b: Place, p: Place) -> Ordering {
    let det = if a.turn == p.turn && b.turn == p.turn {
        robust::orient2d(scaled(a), scaled(b), scaled(p))
    } else {
        turned_det(a, b, p)
    };
    det.partial_cmp(&0.0).expect("coordinates are finite")
}

fn scaled(at: Place) -> robust::Coord<f64> {
    robust::Coord {
        x: at.lon * SCALE,
        y: at.lat * SCALE,
    }
}

/// The sign of the determinant where the places are not all of one turn.
fn turned_det(a: Place, b: Place, p: Place) -> f64 {
    let (turns_a, turns_b) = (f64::from(a.turn - p.turn), f64::from(b.turn - p.turn));
    let (ax, bx) = (
        a.lon - p.lon + 360.0 * turns_a,
        b.lon - p.lon + 360.0 * turns_b,
    );
    let (ay, by) = (a.lat - p.lat, b.lat - p.lat);
    let (left, right) = (ax * by, ay * bx);
    let det = left - right;
    // Each x is wrong by less than 4 units of 2^-53 of the largest number met on the way (360 · turns + 720), each y
    // and each product by one unit of its own: bounded generously, as all that is at stake is the slow path.
    let reach = 360.0 * (turns_a.abs() + turns_b.abs()) + 720.0;
    let bound = 1e-15 * (reach * (ay.abs() + by.abs()) + left.abs() + right.abs());
    if det.abs() > bound && bound > f64::MIN_POSITIVE * 1e16 {
        return det;
    }
    exact_turned_det(a, b, p, turns_a, turns_b)
}

/// The same, summed without any rounding: ten products of two numbers, each as its rounded value and its error.
fn exact_turned_det(a: Place, b: Place, p: Place, turns_a: f64, turns_b: f64) -> f64 {
    let [ax, ay, bx, by, px, py] =
        [a.lon, a.lat, b.lon, b.lat, p.lon, p.lat].map(|degrees| degrees * SCALE);
    let (round_a, round_b) = (360.0 * turns_a * SCALE, 360.0 * turns_b * SCALE);
    let products = [
        (ax, by),
        (-ax, py),
        (-px, by),
        (-ay, bx),
        (ay, px),
        (py, bx),
        (round_a, by),
        (-round_a, py),
        (-round_b, ay),
        (round_b, py),
    ];
    // A sum of numbers that do not overlap, smallest first (Shewchuk, grow-expansion): the last that is not zero
    // has the sign of all.
    let mut sum = [0.0_f64; 20];
    let mut len = 0;
    for (x, y) in products {
        let product = x * y;
        for term in [x.mul_add(y, -product), product] {
            let mut carry = term;
            for slot in &mut sum[..len] {
                let (high, low) = two_sum(carry, *slot);
                *slot = low;
                carry = high;
            }
            sum[len] = carry;
            len += 1;
        }
    }
    sum.iter()
        .rev()
        .copied()
        .find(|term| *term != 0.0)
        .unwrap_or(0.0)
}

/// The rounded sum of two numbers and what the rounding lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// How `to - from` compares with `limit`, exactly.
pub(super) fn compare_step(from: f64, to: f64, limit: f64) -> Ordering {
    let (step, lost) = two_sum(to, -from);
    let compared = if step == limit {
        lost.partial_cmp(&0.0)
    } else {
        step.partial_cmp(&limit)
    };
    compared.expect("coordinates are finite")
}

/// Compares two directions from `at`, counterclockwise from due south (exclusive): first those to the east, then
/// due north, then those to the west, then due south. Equal where they are the same ray.
pub(super) fn compare_directions(at: Place, one: Place, other: Place) -> Ordering {
    let half = |to: &Place| match (to.turn.cmp(&at.turn)).then(to.lon.total_cmp(&at.lon)) {
        Ordering::Greater => 0,
        Ordering::Equal if to.lat > at.lat => 1,
        Ordering::Less => 2,
        Ordering::Equal => 3,
    };
    half(&one)
        .cmp(&half(&other))
        .then_with(|| match half(&one) {
            1 | 3 => Ordering::Equal,
            _ => side(at, one, other).reverse(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lon: f64, turn: i32, lat: f64) -> Place {
        Place { lon, turn, lat }
    }

    /// The determinant in whole numbers of 2^-40 degrees.
    fn whole_det(a: Place, b: Place, p: Place) -> i128 {
        let unit = (1_i64 << 40) as f64;
        let x = |at: Place| (at.lon * unit) as i128 + i128::from(at.turn) * 360 * (1 << 40);
        let y = |at: Place| (at.lat * unit) as i128;
        (x(a) - x(p)) * (y(b) - y(p)) - (y(a) - y(p)) * (x(b) - x(p))
    }

    #[test]
    fn side_across_turns_agrees_with_whole_numbers() {
        let mut seed = 7_u64;
        let mut next = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let unit = (1_i64 << 40) as f64;
        for round in 0..20_000 {
            // Coarse grids make collinear places common, the finest unit near misses of them.
            let coarse = if round % 2 == 0 { 45.0 } else { 0.5 };
            let mut at = || {
                let steps = (360.0 / coarse) as u64;
                let jitter = if next(3) == 0 {
                    next(3) as f64 / unit
                } else {
                    0.0
                };
                place(
                    -180.0 + next(steps) as f64 * coarse + jitter,
                    next(3) as i32 - 1,
                    -90.0 + next(steps / 2) as f64 * coarse,
                )
            };
            let (a, b, p) = (at(), at(), at());
            let expected = whole_det(a, b, p).cmp(&0);
            assert_eq!(side(a, b, p), expected, "{a:?} {b:?} {p:?}");
            assert_eq!(side(b, a, p), expected.reverse(), "{a:?} {b:?} {p:?}");
        }
    }

    #[test]
    fn smallest_step_off_a_line_is_seen_though_its_product_underflows() {
        let (a, b) = (place(0.0, 0, 10.0), place(1.0, 0, 10.3));
        assert_eq!(
            side(a, b, place(f64::from_bits(1), 0, 10.0)),
            Ordering::Less
        );
        assert_eq!(
            side(a, b, place(-f64::from_bits(1), 0, 10.0)),
            Ordering::Greater
        );
        assert_eq!(
            side(a.turned(1), b.turned(1), place(f64::from_bits(1), 1, 10.0)),
            Ordering::Less
        );
    }

    #[test]
    fn step_is_compared_exactly_where_its_rounding_hides_it() {
        assert_eq!(compare_step(-1e-20, 180.0, 180.0), Ordering::Greater);
        assert_eq!(compare_step(1e-20, 180.0, 180.0), Ordering::Less);
        assert_eq!(compare_step(0.0, 180.0, 180.0), Ordering::Equal);
        assert_eq!(compare_step(-180.0, 180.0, 360.0), Ordering::Equal);
    }

    #[test]
    fn directions_go_round_counterclockwise() {
        let at = place(-180.0, 1, 0.0);
        let round = [
            place(-179.0, 1, -5.0),
            place(-179.0, 1, 0.0),
            place(-179.0, 1, 5.0),
            place(-180.0, 1, 5.0),
            place(179.0, 0, 5.0),
            place(179.0, 0, 0.0),
            place(179.0, 0, -5.0),
            place(-180.0, 1, -5.0),
        ];
        for (i, one) in round.iter().enumerate() {
            for (j, other) in round.iter().enumerate() {
                assert_eq!(
                    compare_directions(at, *one, *other),
                    i.cmp(&j),
                    "{one:?} {other:?}"
                );
            }
        }
        assert_eq!(
            compare_directions(at, place(-170.0, 1, 10.0), place(-175.0, 1, 5.0)),
            Ordering::Equal
        );
    }
}
