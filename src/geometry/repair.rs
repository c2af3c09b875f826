//! Repair: a valid area with the same even-odd area as the rings written (`i_overlay`, whole numbers).
//!
//! The rings are laid on the map from -180 to 180, each as often as it reaches into it, rings round a pole closed
//! along it; so the result is cut at the antimeridian. Coordinates are rounded to 2^-44 degrees (6 nm), which `f64`
//! holds exactly: what is valid in whole numbers stays valid.

use std::panic::{AssertUnwindSafe, catch_unwind};

use i_overlay::core::fill_rule::FillRule;
use i_overlay::core::overlay::{IntOverlayOptions, Overlay, ShapeType};
use i_overlay::core::overlay_rule::OverlayRule;
use i_overlay::i_float::int::point::IntPoint;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

use super::ShapeRules;
use super::exact::Place;
use super::ring::{Pole, Ring};
use super::validate;
use crate::rejection::{Rejection, RejectionReason};

/// Whole numbers per degree.
const UNITS: f64 = (1_u64 << 44) as f64;

/// A turn in whole numbers.
const TURN: i64 = 360 << 44;

/// Most turns a ring may reach over.
const TURNS_MAX: i32 = 4;

/// Most pairs of edges with overlapping rectangles that are looked at: bounds the time, at some seconds.
const PAIRS_MAX: usize = 30_000_000;

type Point = IntPoint<i64>;

/// Makes valid rings of any rings.
pub(super) fn repair(rings: &[Ring], rules: &ShapeRules) -> Result<Vec<Ring>, Rejection> {
    let mut contours = Vec::new();
    for ring in rings {
        contours.extend(copies_on_map(ring)?);
    }
    check_crossings(&contours, rules.vertices_max)?;
    let contours = overlay(&contours)?;
    if contours.is_empty() {
        return Err(failed("nothing is left of it"));
    }
    let vertices: usize = contours.iter().map(Vec::len).sum();
    if contours.len() > rules.parts_max || vertices > rules.vertices_max {
        return Err(failed("the repaired area has too many parts or vertices"));
    }
    let ring = |contour: &Vec<Point>| {
        Ring::planar(0, 0, contour.iter().map(|point| place(*point)).collect())
    };
    // The overlay's own grouping puts holes into shapes they only touch (seen with 9.1.0).
    validate::group(contours.iter().map(ring).collect())
        .map_err(|rejection| failed(&format!("the repaired area is not valid: {rejection}")))
}

fn failed(what: &str) -> Rejection {
    Rejection::new(RejectionReason::RepairFailed, what)
}

/// The contours of what is covered an odd number of times, cut to the map.
fn overlay(contours: &[Vec<Point>]) -> Result<Vec<Vec<Point>>, Rejection> {
    let (east, north) = (TURN / 2, TURN / 4);
    let map = [
        (-east, -north),
        (east, -north),
        (east, north),
        (-east, north),
    ];
    let map = map.map(|(x, y)| Point::new(x, y));
    // It is third-party code that runs on hostile shapes here, and the only one: a defect of it is one zone's bad luck.
    catch_unwind(AssertUnwindSafe(|| {
        let mut overlay = Overlay::new_custom(
            contours.iter().map(Vec::len).sum(),
            IntOverlayOptions::ogc(),
            Default::default(),
        );
        for contour in contours {
            overlay.add_contour(contour, ShapeType::Subject);
        }
        overlay.add_contour(&map, ShapeType::Clip);
        overlay
            .overlay(OverlayRule::Intersect, FillRule::EvenOdd)
            .into_iter()
            .flatten()
            .collect()
    }))
    .map_err(|_| failed("the overlay could not compute it"))
}

/// The ring in whole numbers, shifted by whole turns to everywhere where it reaches into the map.
fn copies_on_map(ring: &Ring) -> Result<Vec<Vec<Point>>, Rejection> {
    let first = ring.places.iter().map(|at| at.turn).min().unwrap_or(0);
    let last = ring.places.iter().map(|at| at.turn).max().unwrap_or(0);
    if last - first > TURNS_MAX {
        return Err(failed("a ring reaches round the earth too often"));
    }
    let mut contour: Vec<Point> = ring
        .places
        .iter()
        .map(|at| point(at.turned(-first)))
        .collect();
    if let Some(pole) = ring.pole {
        let start = ring.places[0].turned(-first);
        let end = start.turned(ring.winding);
        let lat = if pole == Pole::North { 90.0 } else { -90.0 };
        let corners = [end, Place { lat, ..end }, Place { lat, ..start }];
        contour.extend(corners.map(point));
    }
    // A winding ring may end one turn further than any of its places, either way.
    let copies = (-1 - (last - first))..=1;
    let on_map = |turns: &i32| {
        let shift = i64::from(*turns) * TURN;
        contour.iter().any(|point| point.x + shift < TURN / 2)
            && contour.iter().any(|point| point.x + shift > -TURN / 2)
    };
    let shifted = |turns: i32| {
        let shift = i64::from(turns) * TURN;
        contour
            .iter()
            .map(|point| Point::new(point.x + shift, point.y))
            .collect()
    };
    Ok(copies.filter(on_map).map(shifted).collect())
}

fn point(at: Place) -> Point {
    let units = |degrees: f64| (degrees * UNITS).round() as i64;
    Point::new(units(at.lon) + i64::from(at.turn) * TURN, units(at.lat))
}

fn place(point: Point) -> Place {
    let degrees = |units: i64| units as f64 / UNITS;
    Place::of(super::Position {
        lon: degrees(point.x),
        lat: degrees(point.y),
    })
}

/// Refuses rings that cross so often that their overlay would be too large, before it is computed: n edges can make
/// n² pieces.
fn check_crossings(contours: &[Vec<Point>], crossings_max: usize) -> Result<(), Rejection> {
    let mut edges = Vec::new();
    for contour in contours {
        for (index, from) in contour.iter().enumerate() {
            let to = contour[(index + 1) % contour.len()];
            let corners = [[from.x, from.y], [to.x, to.y]];
            let rectangle = Rectangle::from_aabb(AABB::from_corners(corners[0], corners[1]));
            edges.push(GeomWithData::new(rectangle, corners));
        }
    }
    let tree = RTree::bulk_load(edges);
    let (mut pairs, mut crossings) = (0_usize, 0_usize);
    for (one, other) in tree.intersection_candidates_with_other_tree(&tree) {
        pairs += 1;
        // Each pair comes twice.
        crossings += usize::from(crosses(&one.data, &other.data));
        if pairs > 2 * PAIRS_MAX || crossings > 2 * crossings_max {
            return Err(failed("its edges cross too often"));
        }
    }
    Ok(())
}

/// Whether two edges cross inside both.
fn crosses(one: &[[i64; 2]; 2], other: &[[i64; 2]; 2]) -> bool {
    let side = |[a, b]: &[[i64; 2]; 2], p: [i64; 2]| {
        let wide = |from: [i64; 2], to: [i64; 2], axis: usize| i128::from(to[axis] - from[axis]);
        (wide(*a, *b, 0) * wide(*a, p, 1) - wide(*a, *b, 1) * wide(*a, p, 0)).signum()
    };
    side(one, other[0]) * side(one, other[1]) < 0 && side(other, one[0]) * side(other, one[1]) < 0
}
