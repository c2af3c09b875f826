//! What a shape is: validation, normalisation (winding, closing, ±180°, poles), circles and the exact `covers`.
//! Boundary belongs to the zone (DESIGN 5). Knows nothing of JSON, Kafka or time.
//!
//! `ring` understands what is written, `validate`, `simple` and `sweep` judge it, `repair` mends it, `polygons` and `circle`
//! answer; `exact` holds the predicates that all of them rest on.

mod circle;
mod envelope;
mod exact;
#[cfg(test)]
mod oracle;
mod polygons;
mod repair;
mod ring;
mod segment;
mod simple;
mod status;
mod stripes;
mod sweep;
mod validate;
mod vertices;

use crate::rejection::{Rejection, RejectionReason};
pub use circle::{Circle, EARTH_RADIUS_M, distance_m};
use polygons::Polygons;
use ring::Ring;
pub use segment::Segment;
pub use stripes::Crossing;

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
        Self {
            on_invalid: OnInvalid::Reject,
            vertices_max: 1_000_000,
            parts_max: 10_000,
        }
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

/// An edge of an area as it is stored: straight in lon and lat.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Edge {
    /// Where it begins; longitudes are within -180 to 180.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// Whether it crosses the antimeridian, and which way: then it goes on at the other side of the map.
    pub crosses: Option<Crossing>,
}

/// The area of a zone: valid, normalised, immutable.
#[derive(Clone, Debug)]
pub struct Area(Form);

#[derive(Clone, Debug)]
enum Form {
    Polygons(Polygons),
    Circle(Circle),
}

impl Area {
    /// Understands a shape. Counts are checked first, then numbers, then rings, then how they lie to each other.
    ///
    /// # Errors
    /// A [`Rejection`] that names the rule the shape broke.
    pub fn new(raw: RawShape, rules: &ShapeRules) -> Result<Self, Rejection> {
        match raw {
            RawShape::MultiPolygon(polygons) => {
                check_caps(&polygons, rules)?;
                check_numbers(polygons.iter().flatten().flatten())?;
                let rings = read_rings(&polygons, rules.on_invalid)?;
                Ok(Self::of_polygons(&judge(rings, rules)?))
            }
            RawShape::Circle { center, radius_m } => {
                check_numbers([&center])?;
                Ok(Self(Form::Circle(Circle::new(center, radius_m)?)))
            }
        }
    }

    fn of_polygons(rings: &[Ring]) -> Self {
        Self(Form::Polygons(Polygons::new(rings)))
    }

    /// Whether the area covers the place, boundary included, exactly. The longitude is within -180 to 180, which are
    /// one meridian.
    #[must_use]
    pub fn covers(&self, at: Position) -> bool {
        match &self.0 {
            Form::Polygons(polygons) => polygons.covers(at),
            Form::Circle(circle) => circle.covers(at),
        }
    }

    /// Asks for most of the memory that [`Self::covers`] reads of a shape of the usual size, for places that are asked one
    /// after the other: so none of their shapes is waited for alone.
    #[inline]
    pub(crate) fn fetch(&self) {
        match &self.0 {
            Form::Polygons(polygons) => polygons.fetch(),
            Form::Circle(_) => {}
        }
    }

    /// One or two rectangles that together hold every place of the area, within lon -180 to 180; a place on the
    /// antimeridian under both its names.
    #[must_use]
    pub fn envelopes(&self) -> Vec<Envelope> {
        match &self.0 {
            Form::Polygons(polygons) => polygons.envelopes().copied().collect(),
            Form::Circle(circle) => circle.envelopes(),
        }
    }

    /// A place that the area covers, inside where doubles have one there: what validation before a publish looks up. Asked
    /// for once or twice in the life of an area, so it is found anew each time.
    #[must_use]
    pub fn interior_point(&self) -> Position {
        match &self.0 {
            Form::Polygons(polygons) => polygons.interior_point(),
            Form::Circle(circle) => circle.center(),
        }
    }

    /// How many vertices it has, closing ones apart. A circle has none.
    #[must_use]
    pub fn vertex_count(&self) -> usize {
        match &self.0 {
            Form::Polygons(polygons) => polygons.vertex_count(),
            Form::Circle(_) => 0,
        }
    }

    /// What it occupies, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Form::Polygons(polygons) => polygons.byte_len(),
                Form::Circle(_) => 0,
            }
    }

    /// The circle, if it is one.
    #[must_use]
    pub fn circle(&self) -> Option<&Circle> {
        match &self.0 {
            Form::Polygons(_) => None,
            Form::Circle(circle) => Some(circle),
        }
    }

    /// The edges of all rings; a circle has none. A place that is on no edge is inside if the number of edges on its
    /// meridian south of it is odd, or even where the area [covers the south pole](Self::covers_south_pole).
    pub fn edges(&self) -> impl Iterator<Item = Edge> {
        self.polygons().into_iter().flat_map(Polygons::edges)
    }

    /// Adds all pieces of its boundary to `found`; a circle has none.
    pub fn segments(&self, found: &mut Vec<Segment>) {
        found.reserve(self.vertex_count());
        // Edge by edge and not by `extend`, which asks an iterator of two levels for each piece from outside.
        self.edges().for_each(|edge| match edge.crosses {
            None => found.push(Segment::new(edge.from, edge.to)),
            Some(_) => found.extend(Segment::of(&edge)),
        });
    }

    /// Adds the pieces of its boundary that meet the window to `found`; a circle has none.
    pub fn segments_near(&self, window: &Envelope, found: &mut Vec<Segment>) {
        if let Form::Polygons(polygons) = &self.0 {
            polygons.segments_near(window, found);
        }
    }

    /// Whether a ring round the south pole is part of it.
    #[must_use]
    pub fn covers_south_pole(&self) -> bool {
        self.polygons().is_some_and(Polygons::covers_south_pole)
    }

    fn polygons(&self) -> Option<&Polygons> {
        match &self.0 {
            Form::Polygons(polygons) => Some(polygons),
            Form::Circle(_) => None,
        }
    }
}

/// Checks the counts: nothing else of the shape is read before.
fn check_caps(polygons: &[Vec<Vec<Position>>], rules: &ShapeRules) -> Result<(), Rejection> {
    if polygons.is_empty() || polygons.iter().any(Vec::is_empty) {
        return Err(Rejection::new(
            RejectionReason::EmptyGeometry,
            "the geometry has no polygon, or one without rings",
        ));
    }
    let parts: usize = polygons.iter().map(Vec::len).sum();
    if parts > rules.parts_max {
        return Err(Rejection::new(
            RejectionReason::TooManyParts,
            format!(
                "{parts} polygons and holes, at most {} are allowed",
                rules.parts_max
            ),
        ));
    }
    // What references to edges can name bounds the cap itself.
    let vertices_max = rules
        .vertices_max
        .min(stripes::VERTICES_MAX - rules.parts_max.min(1 << 29));
    let vertices: usize = polygons.iter().flatten().map(Vec::len).sum();
    if vertices > vertices_max {
        return Err(Rejection::new(
            RejectionReason::TooManyVertices,
            format!("{vertices} vertices, at most {vertices_max} are allowed"),
        ));
    }
    Ok(())
}

/// Checks that coordinates are finite and in range: longitudes may be written from -180 to 180 or from 0 to 360.
fn check_numbers<'a>(positions: impl IntoIterator<Item = &'a Position>) -> Result<(), Rejection> {
    let is_right =
        |at: &Position| (-180.0..=360.0).contains(&at.lon) && (-90.0..=90.0).contains(&at.lat);
    match positions.into_iter().position(|at| !is_right(at)) {
        None => Ok(()),
        Some(index) => Err(Rejection::new(
            RejectionReason::CoordinateRange,
            format!(
                "position {} is not finite or outside lon -180 to 360, lat -90 to 90",
                index + 1
            ),
        )),
    }
}

/// Reads every ring; with repair, those without area are left out.
fn read_rings(
    polygons: &[Vec<Vec<Position>>],
    on_invalid: OnInvalid,
) -> Result<Vec<Ring>, Rejection> {
    let mut rings = Vec::new();
    for (polygon, written) in polygons.iter().enumerate() {
        for (number, positions) in written.iter().enumerate() {
            match Ring::new(polygon, number, positions) {
                Ok(ring) => rings.push(ring),
                Err(rejection) if on_invalid == OnInvalid::Repair && has_no_area(&rejection) => {}
                Err(rejection) => return Err(rejection),
            }
        }
    }
    Ok(rings)
}

fn has_no_area(rejection: &Rejection) -> bool {
    matches!(
        rejection.reason,
        RejectionReason::RingTooShort | RejectionReason::RingWithoutArea
    )
}

/// Checks the rings, and repairs them if they are to be.
fn judge(rings: Vec<Ring>, rules: &ShapeRules) -> Result<Vec<Ring>, Rejection> {
    if rings.is_empty() {
        return Err(Rejection::new(
            RejectionReason::RepairFailed,
            "no ring has an area",
        ));
    }
    match (validate::check(&rings), rules.on_invalid) {
        (Ok(()), _) if has_exteriors(&rings) => Ok(rings),
        (Err(rejection), OnInvalid::Reject) => Err(rejection),
        _ => {
            let repaired = repair::repair(&rings, rules)?;
            match validate::check(&repaired) {
                Ok(()) => Ok(repaired),
                Err(rejection) => Err(Rejection::new(
                    RejectionReason::RepairFailed,
                    format!("the repaired area is not valid: {rejection}"),
                )),
            }
        }
    }
}

/// Whether each polygon begins with its exterior. Where that was left out as it has no area, its holes are what is
/// covered an odd number of times.
fn has_exteriors(rings: &[Ring]) -> bool {
    rings
        .chunk_by(|one, other| one.polygon == other.polygon)
        .all(|polygon| polygon[0].number == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lon: f64, lat: f64) -> Position {
        Position { lon, lat }
    }

    fn ring(corners: &[(f64, f64)]) -> Vec<Position> {
        corners.iter().map(|(lon, lat)| at(*lon, *lat)).collect()
    }

    fn area_of(rings: &[&[(f64, f64)]]) -> Result<Area, Rejection> {
        let polygon = rings.iter().map(|corners| ring(corners)).collect();
        Area::new(
            RawShape::MultiPolygon(vec![polygon]),
            &ShapeRules::default(),
        )
    }

    fn reason(rings: &[&[(f64, f64)]]) -> RejectionReason {
        area_of(rings).unwrap_err().reason
    }

    const SQUARE: [(f64, f64); 5] = [(0., 0.), (10., 0.), (10., 10.), (0., 10.), (0., 0.)];

    #[test]
    fn each_broken_rule_has_its_reason() {
        use RejectionReason as R;
        assert_eq!(reason(&[]), R::EmptyGeometry);
        assert_eq!(reason(&[&[]]), R::RingTooShort);
        assert_eq!(reason(&[&SQUARE[..3]]), R::RingTooShort);
        assert_eq!(
            reason(&[&[(0., 0.), (1., 0.), (0., 0.), (1., 0.), (0., 0.)]]),
            R::RingTooShort
        );
        assert_eq!(reason(&[&SQUARE[..4]]), R::RingNotClosed);
        assert_eq!(
            reason(&[&[(0., 0.), (1., 1.), (2., 2.), (0., 0.)]]),
            R::RingWithoutArea
        );
        assert_eq!(
            reason(&[&[(0., 0.), (1., 1.), (1., 0.), (0., 1.), (0., 0.)]]),
            R::SelfIntersection
        );
        let spike = [
            (0., 0.),
            (10., 0.),
            (10., 10.),
            (10., 20.),
            (10., 10.),
            (0., 10.),
            (0., 0.),
        ];
        assert_eq!(reason(&[&spike]), R::SelfIntersection);
        let outside = [(20., 0.), (21., 0.), (21., 1.), (20., 0.)];
        assert_eq!(reason(&[&SQUARE, &outside]), R::HoleOutside);
        assert_eq!(reason(&[&SQUARE, &SQUARE]), R::RingsIntersect);
        let cuts = [(0., 0.), (10., 10.), (5., 8.), (0., 0.)];
        assert_eq!(reason(&[&SQUARE, &cuts]), R::InteriorDisconnected);
        for wrong in [f64::NAN, f64::INFINITY, -180.1, 360.1] {
            assert_eq!(
                reason(&[&[(wrong, 0.), (1., 0.), (1., 1.), (wrong, 0.)]]),
                R::CoordinateRange
            );
        }
        assert_eq!(
            reason(&[&[(0., 90.5), (1., 0.), (1., 1.), (0., 90.5)]]),
            R::CoordinateRange
        );
    }

    #[test]
    fn hole_whose_exterior_has_no_area_is_covered_once_it_is_repaired() {
        let point: &[_] = &[(0.5, 0.5); 4];
        let inner = [(2., 2.), (3., 2.), (3., 3.), (2., 3.), (2., 2.)];
        let rules = ShapeRules {
            on_invalid: OnInvalid::Repair,
            ..ShapeRules::default()
        };
        for rings in [vec![point, &SQUARE], vec![point, &SQUARE, &inner]] {
            let polygon: Vec<_> = rings.iter().map(|corners| ring(corners)).collect();
            for polygons in [vec![polygon.clone()], vec![vec![ring(point)], polygon]] {
                let area = Area::new(RawShape::MultiPolygon(polygons), &rules).unwrap();
                assert!(area.covers(area.interior_point()) && area.covers(at(5., 5.)));
                assert!(area.covers(at(0., 0.)) && !area.covers(at(11., 5.)));
                assert_eq!(area.covers(at(2.5, 2.5)), rings.len() == 2);
            }
        }
    }

    #[test]
    fn caps_are_checked_before_numbers() {
        let polygon = vec![ring(&[(f64::NAN, 0.); 9]), ring(&SQUARE)];
        let judge = |rules| Area::new(RawShape::MultiPolygon(vec![polygon.clone()]), &rules);
        let rules = ShapeRules {
            vertices_max: 13,
            ..ShapeRules::default()
        };
        assert_eq!(
            judge(rules).unwrap_err().reason,
            RejectionReason::TooManyVertices
        );
        let rules = ShapeRules {
            parts_max: 1,
            ..ShapeRules::default()
        };
        assert_eq!(
            judge(rules).unwrap_err().reason,
            RejectionReason::TooManyParts
        );
    }

    #[test]
    fn one_ulp_off_an_edge_or_a_vertex_is_seen() {
        let area = area_of(&[&[(0.1, 0.1), (10.3, 0.7), (5.5, 9.9), (0.1, 0.1)]]).unwrap();
        assert!(area.covers(at(0.1, 0.1)));
        assert!(!area.covers(at(0.1_f64.next_down(), 0.1)));
        assert!(area.covers(at(10.3, 0.7)));
        assert!(!area.covers(at(10.3_f64.next_up(), 0.7)));
        let square = area_of(&[&SQUARE]).unwrap();
        assert!(square.covers(at(10.0, 5.0)) && square.covers(at(5.0, 0.0)));
        assert!(!square.covers(at(10.0_f64.next_up(), 5.0)));
        assert!(!square.covers(at(5.0, -f64::from_bits(1))));
    }

    #[test]
    fn ring_round_a_pole_encloses_the_pole_of_its_hemisphere_in_either_winding() {
        for sign in [1.0, -1.0] {
            let mut corners = [
                (-180., 80.),
                (-90., 70.),
                (0., 80.),
                (90., 75.),
                (180., 80.),
            ];
            corners.iter_mut().for_each(|corner| corner.1 *= sign);
            let mut reversed = corners;
            reversed.reverse();
            for corners in [corners, reversed] {
                let area = area_of(&[&corners]).unwrap();
                for lon in [-180., -135., -90., 0., 45., 179., 180.] {
                    assert!(area.covers(at(lon, 90. * sign)) && area.covers(at(lon, 85. * sign)));
                    assert!(
                        !area.covers(at(lon, 60. * sign)) && !area.covers(at(lon, -85. * sign))
                    );
                }
                assert!(area.covers(at(-90., 70. * sign)));
                assert!(!area.covers(at(-90., 70_f64.next_down() * sign)));
                assert_eq!(area.covers_south_pole(), sign < 0.0);
            }
        }
        let wave = [
            (-180., 10.),
            (-90., -10.),
            (0., 10.),
            (90., 5.),
            (180., 10.),
        ];
        assert_eq!(reason(&[&wave]), RejectionReason::AmbiguousPole);
    }

    #[test]
    fn band_between_two_rings_round_a_pole_leaves_the_pole_out() {
        let band = |inner: f64, outer: f64| {
            let circle = |lat| [(-180., lat), (-60., lat), (60., lat), (180., lat)];
            area_of(&[&circle(outer), &circle(inner)])
        };
        for sign in [1.0, -1.0] {
            let area = band(80. * sign, 60. * sign).unwrap();
            assert!(area.covers(at(180., 70. * sign)) && area.covers(at(10., 80. * sign)));
            assert!(!area.covers(at(10., 85. * sign)) && !area.covers(at(10., 50. * sign)));
            let wrong = band(60. * sign, 80. * sign).unwrap_err();
            assert_eq!(wrong.reason, RejectionReason::HoleOutside);
        }
    }

    #[test]
    fn ring_of_whole_turns_is_taken_as_written() {
        for west in [-180., 0.] {
            let east = west + 360.;
            for corners in [
                vec![
                    (west, 60.),
                    (east, 60.),
                    (east, 70.),
                    (west, 70.),
                    (west, 60.),
                ],
                vec![
                    (west, 60.),
                    (east, 60.),
                    (east, 70.),
                    (west + 180., 70.),
                    (west, 70.),
                    (west, 60.),
                ],
            ] {
                let area = area_of(&[&corners]).unwrap();
                for lon in [-180., -179.9, -1., 0., 0.1, 90., 180.] {
                    assert!(
                        area.covers(at(lon, 65.)) && area.covers(at(lon, 60.)),
                        "{corners:?} {lon}"
                    );
                    assert!(!area.covers(at(lon, 59.9)) && !area.covers(at(lon, 70.1)));
                }
            }
        }
        let world = area_of(&[&[
            (-180., -90.),
            (180., -90.),
            (180., 90.),
            (-180., 90.),
            (-180., -90.),
        ]]);
        let world = world.unwrap();
        assert!(
            world.covers(at(180., 90.))
                && world.covers(at(-180., -90.))
                && world.covers(at(3., 4.))
        );
    }

    #[test]
    fn zone_that_ends_at_the_antimeridian_is_found_under_both_its_names() {
        for corners in [
            [(170., 0.), (180., 0.), (180., 5.), (170., 5.), (170., 0.)],
            [
                (-170., 0.),
                (-180., 0.),
                (-180., 5.),
                (-170., 5.),
                (-170., 0.),
            ],
            [(190., 0.), (180., 0.), (180., 5.), (190., 5.), (190., 0.)],
        ] {
            let area = area_of(&[&corners]).unwrap();
            for lon in [-180., 180.] {
                assert!(area.covers(at(lon, 3.)));
                assert!(
                    area.envelopes()
                        .iter()
                        .any(|envelope| envelope.covers(at(lon, 3.)))
                );
                assert!(!area.covers(at(lon, 6.)));
            }
        }
    }

    #[test]
    fn edges_tell_what_covers_tells() {
        let corners = [
            (170., -5.),
            (-170., -6.),
            (-165., 8.),
            (175., 9.),
            (170., -5.),
        ];
        let area = area_of(&[&corners]).unwrap();
        let crossing: Vec<_> = area.edges().filter_map(|edge| edge.crosses).collect();
        assert_eq!(crossing, [Crossing::Eastward, Crossing::Westward]);
        assert_eq!((area.edges().count(), area.vertex_count()), (4, 4));
    }
}
