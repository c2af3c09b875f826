//! Circles on the sphere: all places within a great-circle distance of a centre. One function decides for all
//! engines, with the transcendental functions of `libm`, which give the same bits on every machine (DESIGN 5).

use super::{Envelope, Position};
use crate::rejection::{Rejection, RejectionReason};

/// The earth's mean radius in metres (IUGG), as DESIGN 5 fixes it.
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// What rounding may move the rim by, in degrees, with much to spare: envelopes are wider by it. Near the antipode
/// and near a pole an error of one unit in the last place becomes 1e-8 of a radian.
const ENVELOPE_MARGIN: f64 = 1e-6;

/// A validated circle.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Circle {
    center: Position,
    radius_m: f64,
}

impl Circle {
    /// Checks a circle.
    pub(super) fn new(center: Position, radius_m: f64) -> Result<Self, Rejection> {
        let half_circumference = core::f64::consts::PI * EARTH_RADIUS_M;
        if !(radius_m > 0.0 && radius_m <= half_circumference) {
            return Err(Rejection::new(
                RejectionReason::InvalidRadius,
                format!("`radius_m` must be above 0 and at most {half_circumference:.0}"),
            ));
        }
        // Exact: see `Place::of`.
        let lon = if center.lon > 180.0 {
            center.lon - 360.0
        } else {
            center.lon
        };
        Ok(Self {
            center: Position {
                lon,
                lat: center.lat,
            },
            radius_m,
        })
    }

    /// The centre, its longitude within -180 to 180.
    #[must_use]
    pub fn center(&self) -> Position {
        self.center
    }

    /// The radius in metres.
    #[must_use]
    pub fn radius_m(&self) -> f64 {
        self.radius_m
    }

    /// Whether the place is at most the radius away.
    #[must_use]
    pub fn covers(&self, at: Position) -> bool {
        distance_m(self.center, at) <= self.radius_m
    }

    /// One or two rectangles that hold every place covered.
    pub(super) fn envelopes(&self) -> Vec<Envelope> {
        let reach = (self.radius_m / EARTH_RADIUS_M).to_degrees() + ENVELOPE_MARGIN;
        let (lat_min, lat_max) = (self.center.lat - reach, self.center.lat + reach);
        let across = |lon_min: f64, lon_max: f64| Envelope {
            lon_min,
            lat_min: lat_min.max(-90.0),
            lon_max,
            lat_max: lat_max.min(90.0),
        };
        if lat_max >= 90.0 || lat_min <= -90.0 {
            return vec![across(-180.0, 180.0)];
        }
        // The meridian that touches the rim: sin Δλ = sin(r/R) / cos φ. No pole is within reach, so the quotient is
        // below 1 but for rounding.
        let ratio = libm::sin(reach.to_radians()) / libm::cos(self.center.lat.to_radians());
        let reach_lon = libm::asin(ratio.clamp(-1.0, 1.0)).to_degrees() + ENVELOPE_MARGIN;
        let (west, east) = (self.center.lon - reach_lon, self.center.lon + reach_lon);
        if west <= -180.0 {
            vec![
                across(-180.0, east),
                across((west + 360.0).min(180.0), 180.0),
            ]
        } else if east >= 180.0 {
            vec![
                across(-180.0, (east - 360.0).max(-180.0)),
                across(west, 180.0),
            ]
        } else {
            vec![across(west, east)]
        }
    }
}

/// The great-circle distance of two places in metres, by the haversine formula.
///
/// Above a quarter of the circumference it is taken from the other's antipode: the same formula, but there it does
/// not lose digits. A place at lon -180 and one at 180 are the same, to the bit.
#[must_use]
pub fn distance_m(from: Position, to: Position) -> f64 {
    let (lat_from, lat_to) = (from.lat.to_radians(), to.lat.to_radians());
    let half_lon = libm::fabs(lon_between(from.lon, to.lon)).to_radians() / 2.0;
    let scale = libm::cos(lat_from) * libm::cos(lat_to);
    let (sin_lat, sin_lon) = (libm::sin((lat_from - lat_to) / 2.0), libm::sin(half_lon));
    let near = sin_lat * sin_lat + scale * sin_lon * sin_lon;
    if near <= 0.5 {
        return 2.0 * EARTH_RADIUS_M * libm::asin(libm::sqrt(near));
    }
    let (sin_far, cos_lon) = (libm::sin((lat_from + lat_to) / 2.0), libm::cos(half_lon));
    let far = sin_far * sin_far + scale * cos_lon * cos_lon;
    2.0 * EARTH_RADIUS_M * (core::f64::consts::FRAC_PI_2 - libm::asin(libm::sqrt(far.min(1.0))))
}

/// The step between two longitudes the short way round, rounded at most twice.
pub(super) fn lon_between(from: f64, to: f64) -> f64 {
    let place = |lon: f64| if lon == 180.0 { -180.0 } else { lon };
    let (from, to) = (place(from), place(to));
    let step = to - from;
    // Measured from the antimeridian: exact for whatever lies within 90 degrees of it.
    if step > 180.0 {
        (to - 180.0) - (from + 180.0)
    } else if step < -180.0 {
        (to + 180.0) - (from - 180.0)
    } else {
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances to 50 digits by another formula; the generator stands beside the file.
    const EXACT: &str = include_str!("../../tests/fixtures/circle_distances.csv");

    /// What rounding may cost: coordinates become radians with an error of some units in the last place.
    const ERROR_M: f64 = 1e-8;

    fn rows() -> impl Iterator<Item = (Position, Position, f64)> {
        EXACT.lines().skip(1).map(|line| {
            let n: Vec<f64> = line
                .split(',')
                .map(|field| field.parse().unwrap())
                .collect();
            (
                Position {
                    lon: n[0],
                    lat: n[1],
                },
                Position {
                    lon: n[2],
                    lat: n[3],
                },
                n[4],
            )
        })
    }

    #[test]
    fn distance_agrees_with_fifty_digits() {
        let mut worst = 0.0_f64;
        for (from, to, exact) in rows() {
            let error = (distance_m(from, to) - exact).abs();
            worst = worst.max(error);
            assert!(error <= ERROR_M, "{from:?} {to:?}: {error} m");
            assert_eq!(
                distance_m(from, to).to_bits(),
                distance_m(to, from).to_bits()
            );
        }
        println!("{} distances, at most {worst:e} m off", rows().count());
    }

    #[test]
    fn circle_covers_what_is_at_most_the_radius_away() {
        for (center, at, exact) in rows().filter(|(_, _, exact)| *exact > 1e-6) {
            let covers = |radius_m| Circle::new(center, radius_m).unwrap().covers(at);
            assert!(!covers(exact - 2.0 * ERROR_M), "{center:?} {at:?}");
            if exact + 2.0 * ERROR_M < core::f64::consts::PI * EARTH_RADIUS_M {
                assert!(covers(exact + 2.0 * ERROR_M), "{center:?} {at:?}");
            }
            assert!(
                covers(distance_m(center, at)),
                "the rim belongs to the circle"
            );
        }
    }

    #[test]
    fn envelopes_hold_the_whole_circle() {
        for (center, at, exact) in rows().filter(|(_, _, exact)| *exact > 0.0) {
            let Ok(circle) = Circle::new(center, exact.min(2.0e7)) else {
                continue;
            };
            let envelopes = circle.envelopes();
            let holds = |at: Position| envelopes.iter().any(|envelope| envelope.covers(at));
            assert!(
                !circle.covers(at) || holds(at),
                "{circle:?} {at:?} {envelopes:?}"
            );
            for lon in [-180.0, 180.0] {
                let at = Position {
                    lon,
                    lat: center.lat,
                };
                assert!(
                    !circle.covers(at) || holds(at),
                    "{circle:?} {at:?} {envelopes:?}"
                );
            }
            for lat in [-90.0, 90.0] {
                let at = Position { lon: at.lon, lat };
                assert!(
                    !circle.covers(at) || holds(at),
                    "{circle:?} {at:?} {envelopes:?}"
                );
            }
        }
    }

    #[test]
    fn both_names_of_the_antimeridian_are_one_place() {
        for (center, at, _) in rows() {
            let [west, east] =
                [-180.0, 180.0].map(|lon| distance_m(center, Position { lon, ..at }));
            assert_eq!(west.to_bits(), east.to_bits());
        }
    }

    #[test]
    fn radius_that_is_no_length_is_refused() {
        let center = Position { lon: 0.0, lat: 0.0 };
        for radius_m in [0.0, -1.0, f64::NAN, f64::INFINITY, 20_015_200.0] {
            let rejection = Circle::new(center, radius_m).unwrap_err();
            assert_eq!(rejection.reason, RejectionReason::InvalidRadius);
        }
        assert!(Circle::new(center, 20_015_000.0).is_ok());
    }
}
