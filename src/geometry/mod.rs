//! What a shape is: validation, normalisation (winding, closing, ±180°, poles), circles and the exact `covers`.
//! The only home of `geo`. Boundary belongs to the zone (DESIGN 5). Knows nothing of JSON, Kafka or time.

use crate::rejection::{Rejection, RejectionReason};

/// A place: degrees, WGS 84.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Position {
    /// Degrees east.
    pub lon: f64,
    /// Degrees north.
    pub lat: f64,
}

/// A shape as it was written, not yet understood.
#[derive(Clone, Debug, PartialEq)]
pub enum RawShape {
    /// Polygons, each its outer ring and its holes, each ring its positions as written.
    MultiPolygon(Vec<Vec<Vec<Position>>>),
    /// All places within `radius_m` of `center` on the sphere (DESIGN 5).
    Circle {
        /// The centre.
        center: Position,
        /// The radius in metres.
        radius_m: f64,
    },
}

/// What to do with a shape that is not valid.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// Refuse it.
    #[default]
    Reject,
    /// Make a valid area with the same even-odd area of it, and validate that again.
    Repair,
}

/// The caps and choices that a shape is judged by.
#[derive(Copy, Clone, Debug)]
pub struct ShapeRules {
    /// What to do with an invalid shape.
    pub on_invalid: OnInvalid,
    /// Most vertices of one shape.
    pub vertices_max: usize,
    /// Most parts (polygons and holes) of one shape.
    pub parts_max: usize,
}

impl Default for ShapeRules {
    fn default() -> Self {
        Self { on_invalid: OnInvalid::Reject, vertices_max: 1_000_000, parts_max: 10_000 }
    }
}

/// A rectangle of degrees, bounds included.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The western bound.
    pub lon_min: f64,
    /// The southern bound.
    pub lat_min: f64,
    /// The eastern bound.
    pub lon_max: f64,
    /// The northern bound.
    pub lat_max: f64,
}

/// The area of a zone: valid, normalised, immutable.
#[derive(Clone, Debug)]
pub struct Area {
    polygons: Vec<Vec<Vec<Position>>>,
}

impl Area {
    /// Understands a shape.
    ///
    /// # Errors
    /// A [`Rejection`] that names the rule the shape broke.
    pub fn new(raw: RawShape, _rules: &ShapeRules) -> Result<Self, Rejection> {
        match raw {
            RawShape::MultiPolygon(polygons) => Ok(Self { polygons }),
            RawShape::Circle { .. } => {
                Err(Rejection::new(RejectionReason::GeometryType, "circles come with the geometry"))
            }
        }
    }

    /// Whether the area covers the place, boundary included, exactly.
    #[must_use]
    pub fn covers(&self, at: Position) -> bool {
        let mut inside = false;
        for ring in self.polygons.iter().flatten() {
            for edge in ring.windows(2) {
                let (a, b) = if edge[0].lat <= edge[1].lat { (edge[0], edge[1]) } else { (edge[1], edge[0]) };
                let side = robust::orient2d(
                    robust::Coord { x: a.lon, y: a.lat },
                    robust::Coord { x: b.lon, y: b.lat },
                    robust::Coord { x: at.lon, y: at.lat },
                );
                let in_box = at.lat >= a.lat
                    && at.lat <= b.lat
                    && at.lon >= a.lon.min(b.lon)
                    && at.lon <= a.lon.max(b.lon);
                if side == 0.0 && in_box {
                    return true;
                }
                if a.lat <= at.lat && at.lat < b.lat && side < 0.0 {
                    inside = !inside;
                }
            }
        }
        inside
    }

    /// Rectangles that together hold every place of the area, within lon -180 to 180.
    #[must_use]
    pub fn envelopes(&self) -> Vec<Envelope> {
        let mut all = Envelope {
            lon_min: f64::INFINITY,
            lat_min: f64::INFINITY,
            lon_max: f64::NEG_INFINITY,
            lat_max: f64::NEG_INFINITY,
        };
        for at in self.polygons.iter().flatten().flatten() {
            all.lon_min = all.lon_min.min(at.lon);
            all.lat_min = all.lat_min.min(at.lat);
            all.lon_max = all.lon_max.max(at.lon);
            all.lat_max = all.lat_max.max(at.lat);
        }
        vec![all]
    }

    /// A place that the area covers: what validation before a publish looks up.
    #[must_use]
    pub fn interior_point(&self) -> Position {
        self.polygons[0][0][0]
    }

    /// How many vertices it has.
    #[must_use]
    pub fn vertex_count(&self) -> usize {
        self.polygons.iter().flatten().map(Vec::len).sum()
    }

    /// What it occupies, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.vertex_count() * size_of::<Position>()
    }
}
