//! What a zone's shape covers, by the witness's own arithmetic: even-odd over the rings as they were written, border
//! included, exact by robust predicates. Where the geometry has to be moved by 360° or measured on the sphere, f64 is
//! not exact: a place closer to the border than that error is [`Covers::Undecided`], and either answer is let pass.
//! Which shapes are valid is not judged here.

use crate::geometry::Position;

/// The earth's mean radius in metres (DESIGN 5).
const EARTH_RADIUS_M: f64 = 6_371_008.8;
/// Degrees: far above the rounding of a longitude moved by 360°, far below a micrometre on the ground.
const SHIFT_ERROR: f64 = 1e-12;
/// Metres: far above the rounding of a distance on the sphere in f64.
const CIRCLE_ERROR_M: f64 = 1e-6;
/// A ring longer than this is cut into bands of latitude.
const EDGES_PER_BAND: usize = 16;

/// Whether a shape covers a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    Yes,
    No,
    /// Closer to the border than the witness's own rounding.
    Undecided,
}

/// A zone's shape.
#[derive(Debug)]
pub(super) enum Shape {
    Polygons(Polygons),
    Circle { center: Position, radius_m: f64 },
}

/// Rings, all polygons together: those of a valid shape do not overlap, so even-odd over all of them is their union.
#[derive(Debug)]
pub(super) struct Polygons {
    edges: Vec<Edge>,
    bands: Bands,
    bounds: Bounds,
    /// Moved by 360° somewhere: its numbers are rounded.
    moved: bool,
    /// Borders are not to be trusted: the daemon may have repaired the shape.
    repaired: bool,
}

/// An edge, its first end the southern one.
#[derive(Clone, Copy, Debug)]
struct Edge {
    south: Position,
    north: Position,
}

/// A rectangle of degrees; `lon` may exceed 180.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) lon_min: f64,
    pub(super) lat_min: f64,
    pub(super) lon_max: f64,
    pub(super) lat_max: f64,
}

/// Edges by latitude: `lists[i]` are those that reach into band `i`.
#[derive(Debug)]
struct Bands {
    lists: Vec<Vec<u32>>,
    south: f64,
    height: f64,
}

impl Shape {
    /// The shape with these polygons, each its rings as they were written.
    pub(super) fn polygons(written: &[Vec<Vec<Position>>], repaired: bool) -> Self {
        let mut edges = Vec::new();
        let mut moved = false;
        for ring in written.iter().flatten() {
            let (places, shifted) = unwrap_ring(ring);
            moved |= shifted;
            for pair in places.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                let (south, north) = if a.lat <= b.lat { (a, b) } else { (b, a) };
                edges.push(Edge { south, north });
            }
        }
        let mut bounds = Bounds {
            lon_min: f64::INFINITY,
            lat_min: f64::INFINITY,
            lon_max: f64::NEG_INFINITY,
            lat_max: f64::NEG_INFINITY,
        };
        for end in edges.iter().flat_map(|edge| [edge.south, edge.north]) {
            bounds.lon_min = bounds.lon_min.min(end.lon);
            bounds.lon_max = bounds.lon_max.max(end.lon);
            bounds.lat_min = bounds.lat_min.min(end.lat);
            bounds.lat_max = bounds.lat_max.max(end.lat);
        }
        let bands = Bands::new(&edges, bounds);
        Self::Polygons(Polygons {
            edges,
            bands,
            bounds,
            moved,
            repaired,
        })
    }

    /// A rectangle within lon -180 to 180 that holds every place of the shape.
    pub(super) fn bounds(&self) -> Bounds {
        match self {
            Self::Polygons(polygons) => polygons.bounds.within_the_globe(),
            Self::Circle { center, radius_m } => {
                let angle = radius_m / EARTH_RADIUS_M + 1e-9;
                let lat = angle.to_degrees();
                let (south, north) = (center.lat - lat, center.lat + lat);
                let wide = if south <= -90.0 || north >= 90.0 {
                    180.0
                } else {
                    (angle.sin() / center.lat.to_radians().cos())
                        .min(1.0)
                        .asin()
                        .to_degrees()
                };
                Bounds {
                    lon_min: center.lon - wide - 1e-9,
                    lat_min: south.max(-90.0),
                    lon_max: center.lon + wide + 1e-9,
                    lat_max: north.min(90.0),
                }
                .within_the_globe()
            }
        }
    }

    /// Whether the shape covers the place.
    pub(super) fn covers(&self, at: Position) -> Covers {
        match self {
            Self::Polygons(polygons) => polygons.covers(at),
            Self::Circle { center, radius_m } => {
                let distance = distance_m(*center, at);
                if (distance - radius_m).abs() <= CIRCLE_ERROR_M {
                    Covers::Undecided
                } else if distance < *radius_m {
                    Covers::Yes
                } else {
                    Covers::No
                }
            }
        }
    }
}

impl Bounds {
    fn within_the_globe(self) -> Self {
        if self.lon_min >= -180.0 && self.lon_max <= 180.0 {
            self
        } else {
            Self {
                lon_min: -180.0,
                lon_max: 180.0,
                ..self
            }
        }
    }

    /// Whether the place lies in it, bounds included.
    pub(super) fn holds(&self, at: Position) -> bool {
        at.lat >= self.lat_min
            && at.lat <= self.lat_max
            && at.lon >= self.lon_min
            && at.lon <= self.lon_max
    }
}

/// The angle between two places from their vectors: another way than the daemon's haversine.
fn distance_m(a: Position, b: Position) -> f64 {
    let vector = |at: Position| {
        let (lon, lat) = (at.lon.to_radians(), at.lat.to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (vector(a), vector(b));
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    let sine = (cross[0] * cross[0] + cross[1] * cross[1] + cross[2] * cross[2]).sqrt();
    let cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    sine.atan2(cosine) * EARTH_RADIUS_M
}

/// Follows a ring across ±180° (DESIGN 5): the places with longitudes that never jump, closed, and whether any moved.
fn unwrap_ring(ring: &[Position]) -> (Vec<Position>, bool) {
    let mut places: Vec<Position> = Vec::with_capacity(ring.len() + 3);
    let (mut turn, mut moved) = (0.0, false);
    for (i, at) in ring.iter().enumerate() {
        if i > 0 {
            let step = at.lon - ring[i - 1].lon;
            if step > 180.0 {
                turn -= 360.0;
            } else if step < -180.0 {
                turn += 360.0;
            }
        }
        moved |= turn != 0.0;
        places.push(Position {
            lon: at.lon + turn,
            lat: at.lat,
        });
    }
    let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) else {
        return (places, false);
    };
    if (last.lon - first.lon).abs() > 359.0 {
        // Back where it began, one turn further: it goes round the pole of its hemisphere.
        let pole = if first.lat > 0.0 { 90.0 } else { -90.0 };
        places.push(Position {
            lon: last.lon,
            lat: pole,
        });
        places.push(Position {
            lon: first.lon,
            lat: pole,
        });
        places.push(first);
    } else if first != last && moved {
        places.push(first); // closed but for the rounding of a turn there and back
    }
    if moved && doubled_area(&places) == 0.0 {
        return (ring.to_vec(), false); // a band of all longitudes, taken as it is written
    }
    (places, moved)
}

fn doubled_area(places: &[Position]) -> f64 {
    places
        .windows(2)
        .map(|pair| (pair[1].lon - pair[0].lon) * (pair[0].lat + pair[1].lat))
        .sum()
}

impl Polygons {
    fn covers(&self, at: Position) -> Covers {
        let mut answer = Covers::No;
        for turn in [0.0, 360.0, -360.0, 720.0, -720.0] {
            let lon = at.lon + turn;
            let slack = if turn == 0.0 && !self.moved {
                0.0
            } else {
                SHIFT_ERROR
            };
            let near = Bounds {
                lon_min: self.bounds.lon_min - slack,
                lon_max: self.bounds.lon_max + slack,
                ..self.bounds
            };
            let moved = Position { lon, lat: at.lat };
            if !near.holds(moved) {
                continue;
            }
            match self.covers_in_the_plane(moved, slack) {
                Covers::Yes => return Covers::Yes,
                Covers::Undecided => answer = Covers::Undecided,
                Covers::No => {}
            }
        }
        answer
    }

    fn covers_in_the_plane(&self, at: Position, slack: f64) -> Covers {
        let mut inside = false;
        let point = robust::Coord {
            x: at.lon,
            y: at.lat,
        };
        for &edge in self.bands.at(at.lat) {
            let Edge { south, north } = self.edges[edge as usize];
            if at.lat < south.lat || at.lat > north.lat {
                continue;
            }
            let (west, east) = if south.lon <= north.lon {
                (south.lon, north.lon)
            } else {
                (north.lon, south.lon)
            };
            if at.lon < west - slack {
                // The edge is wholly to the east of the place: only the ray's half-open rule counts.
                inside ^= south.lat <= at.lat && at.lat < north.lat;
                continue;
            }
            if at.lon > east + slack {
                continue;
            }
            let side = robust::orient2d(
                robust::Coord {
                    x: south.lon,
                    y: south.lat,
                },
                robust::Coord {
                    x: north.lon,
                    y: north.lat,
                },
                point,
            );
            let length = (north.lon - south.lon).hypot(north.lat - south.lat);
            if side == 0.0 && at.lon >= west && at.lon <= east {
                return if slack > 0.0 || self.repaired {
                    Covers::Undecided
                } else {
                    Covers::Yes
                };
            }
            if side.abs() <= slack * length.max(SHIFT_ERROR) {
                return Covers::Undecided;
            }
            inside ^= south.lat <= at.lat && at.lat < north.lat && side > 0.0;
        }
        if inside { Covers::Yes } else { Covers::No }
    }
}

impl Bands {
    #[expect(clippy::cast_precision_loss, reason = "a count of bands")]
    fn new(edges: &[Edge], bounds: Bounds) -> Self {
        let count = (edges.len() / EDGES_PER_BAND).clamp(1, 1 << 16);
        let height = ((bounds.lat_max - bounds.lat_min) / count as f64).max(f64::MIN_POSITIVE);
        let mut bands = Self {
            lists: vec![Vec::new(); count],
            south: bounds.lat_min,
            height,
        };
        for (i, edge) in edges.iter().enumerate() {
            let i = u32::try_from(i).expect("a shape has fewer than 2^32 edges");
            for band in bands.number(edge.south.lat)..=bands.number(edge.north.lat) {
                bands.lists[band].push(i);
            }
        }
        bands
    }

    /// Never falls as the latitude rises, so an edge is in the band of each of its latitudes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    fn number(&self, lat: f64) -> usize {
        (((lat - self.south) / self.height).max(0.0) as usize).min(self.lists.len() - 1)
    }

    fn at(&self, lat: f64) -> &[u32] {
        &self.lists[self.number(lat)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rings: &[&[(f64, f64)]]) -> Shape {
        let rings = rings
            .iter()
            .map(|ring| {
                ring.iter()
                    .map(|&(lon, lat)| Position { lon, lat })
                    .collect()
            })
            .collect();
        Shape::polygons(&[rings], false)
    }

    fn covers(shape: &Shape, lon: f64, lat: f64) -> Covers {
        shape.covers(Position { lon, lat })
    }

    #[test]
    fn border_of_ring_and_hole_is_covered_and_the_hole_is_not() {
        let zone = shape(&[
            &[
                (0.0, 0.0),
                (10.0, 0.0),
                (10.0, 10.0),
                (0.0, 10.0),
                (0.0, 0.0),
            ],
            &[(4.0, 4.0), (6.0, 4.0), (6.0, 6.0), (4.0, 6.0), (4.0, 4.0)],
        ]);
        for (lon, lat, wanted) in [
            (0.0, 0.0, Covers::Yes),
            (10.0, 5.0, Covers::Yes),
            (4.0, 5.0, Covers::Yes),
            (5.0, 5.0, Covers::No),
            (5.0, 4.0_f64.next_up(), Covers::No),
            (5.0, 4.0, Covers::Yes),
            (10.0_f64.next_up(), 5.0, Covers::No),
            (2.0, 2.0, Covers::Yes),
        ] {
            assert_eq!(covers(&zone, lon, lat), wanted, "{lon} {lat}");
        }
    }

    #[test]
    fn one_ulp_off_a_slanted_edge_is_told_apart() {
        let zone = shape(&[&[(0.0, 0.0), (3.0, 1.0), (0.0, 1.0), (0.0, 0.0)]]);
        assert_eq!(covers(&zone, 1.5, 0.5), Covers::Yes);
        assert_eq!(covers(&zone, 1.5_f64.next_up(), 0.5), Covers::No);
        assert_eq!(covers(&zone, 1.5_f64.next_down(), 0.5), Covers::Yes);
    }

    #[test]
    fn three_ways_to_write_a_shape_over_180_agree() {
        let crossing = shape(&[&[
            (170.0, 0.0),
            (-170.0, 0.0),
            (-170.0, 9.0),
            (170.0, 9.0),
            (170.0, 0.0),
        ]]);
        let lon360 = shape(&[&[
            (170.0, 0.0),
            (190.0, 0.0),
            (190.0, 9.0),
            (170.0, 9.0),
            (170.0, 0.0),
        ]]);
        for (lon, wanted) in [
            (175.0, Covers::Yes),
            (-175.0, Covers::Yes),
            (180.0, Covers::Yes),
            (-180.0, Covers::Yes),
            (0.0, Covers::No),
            (-169.0, Covers::No),
            (169.0, Covers::No),
        ] {
            assert_eq!(covers(&crossing, lon, 4.0), wanted, "{lon}");
            assert_eq!(covers(&lon360, lon, 4.0), wanted, "{lon}");
        }
        assert_eq!(
            covers(&crossing, -170.0, 4.0),
            Covers::Undecided,
            "a border that was moved"
        );
    }

    #[test]
    fn a_ring_round_a_pole_covers_it() {
        let cap = shape(&[&[(-120.0, 80.0), (0.0, 80.0), (120.0, 80.0), (-120.0, 80.0)]]);
        assert_eq!(covers(&cap, 33.0, 89.0), Covers::Yes);
        assert_eq!(covers(&cap, 170.0, 85.0), Covers::Yes);
        assert_eq!(covers(&cap, 33.0, 79.0), Covers::No);
        let belt = shape(&[&[
            (-180.0, -10.0),
            (180.0, -10.0),
            (180.0, 10.0),
            (-180.0, 10.0),
            (-180.0, -10.0),
        ]]);
        assert_eq!(covers(&belt, 0.0, 0.0), Covers::Yes);
        assert_eq!(covers(&belt, 0.0, 11.0), Covers::No);
    }

    #[test]
    fn a_circle_is_measured_on_the_sphere() {
        let circle = Shape::Circle {
            center: Position {
                lon: 179.9,
                lat: 60.0,
            },
            radius_m: 50_000.0,
        };
        assert_eq!(covers(&circle, -179.9, 60.0), Covers::Yes);
        assert_eq!(covers(&circle, 178.9, 60.0), Covers::No);
        let (one_degree, lat) = (EARTH_RADIUS_M.to_radians(), 1.0);
        let edge = Shape::Circle {
            center: Position { lon: 0.0, lat: 0.0 },
            radius_m: one_degree,
        };
        assert_eq!(covers(&edge, 0.0, lat), Covers::Undecided);
    }
}
