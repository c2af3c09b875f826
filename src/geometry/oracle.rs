//! A naive, exact judge for tests: whole numbers, every pair of edges, no code shared with the product's.
//!
//! Shapes stand on a small grid of whole degrees, so that touching, overlapping and collinear edges are common.

use super::*;

/// A place in half degrees.
type Point = (i64, i64);
type Contour = Vec<Point>;

fn cross(a: Point, b: Point, p: Point) -> i64 {
    (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0)
}

fn on_edge((a, b): (Point, Point), p: Point) -> bool {
    cross(a, b, p) == 0
        && p.0 >= a.0.min(b.0)
        && p.0 <= a.0.max(b.0)
        && p.1 >= a.1.min(b.1)
        && p.1 <= a.1.max(b.1)
}

fn edges(ring: &Contour) -> impl Iterator<Item = (Point, Point)> + '_ {
    (0..ring.len()).map(|i| (ring[i], ring[(i + 1) % ring.len()]))
}

fn cross_inside(e: (Point, Point), f: (Point, Point)) -> bool {
    cross(e.0, e.1, f.0).signum() * cross(e.0, e.1, f.1).signum() < 0
        && cross(f.0, f.1, e.0).signum() * cross(f.0, f.1, e.1).signum() < 0
}

/// Whether two edges share more than one point.
fn overlap(e: (Point, Point), f: (Point, Point)) -> bool {
    let mut shared = vec![];
    shared.extend([e.0, e.1].into_iter().filter(|p| on_edge(f, *p)));
    shared.extend([f.0, f.1].into_iter().filter(|p| on_edge(e, *p)));
    shared.sort_unstable();
    shared.dedup();
    shared.len() > 1
}

/// `None` on the boundary.
fn inside(ring: &Contour, p: Point) -> Option<bool> {
    let mut odd = false;
    for (a, b) in edges(ring) {
        if on_edge((a, b), p) {
            return None;
        }
        let (low, high) = if a.1 <= b.1 { (a, b) } else { (b, a) };
        if low.1 <= p.1 && p.1 < high.1 && cross(low, high, p) > 0 {
            odd = !odd;
        }
    }
    Some(odd)
}

fn is_simple(ring: &Contour) -> bool {
    let all: Vec<_> = edges(ring).collect();
    (0..all.len()).all(|i| {
        (i + 1..all.len()).all(|j| {
            let (e, f) = (all[i], all[j]);
            let touch = [e.0, e.1].iter().any(|p| on_edge(f, *p))
                || [f.0, f.1].iter().any(|p| on_edge(e, *p));
            let adjacent = j == i + 1 || (i == 0 && j == all.len() - 1);
            !cross_inside(e, f) && !overlap(e, f) && (adjacent || !touch)
        })
    })
}

/// How one ring lies to another: `None` where they cross or share a line.
#[derive(Clone, Copy, PartialEq)]
enum Lies {
    Inside,
    Outside,
}

fn lies(ring: &Contour, around: &Contour) -> Option<Lies> {
    for e in edges(ring) {
        if edges(around).any(|f| cross_inside(e, f) || overlap(e, f)) {
            return None;
        }
    }
    // Between the places where it touches the other, the ring is wholly inside or wholly outside; these are corners of
    // either, so at even half degrees, and the middles between them are whole numbers.
    let mut found = None;
    for (a, b) in edges(ring) {
        let mut stops: Vec<Point> = around
            .iter()
            .copied()
            .filter(|p| on_edge((a, b), *p))
            .chain([a, b])
            .collect();
        stops.sort_unstable();
        stops.dedup();
        for pair in stops.windows(2) {
            let middle = ((pair[0].0 + pair[1].0) / 2, (pair[0].1 + pair[1].1) / 2);
            let side = if inside(around, middle)? {
                Lies::Inside
            } else {
                Lies::Outside
            };
            if *found.get_or_insert(side) != side {
                return None;
            }
        }
    }
    found
}

/// Whether rings and the places where they touch form a cycle.
fn touch_in_a_cycle(rings: &[&Contour]) -> bool {
    let mut places: Vec<Point> = rings.iter().copied().flatten().copied().collect();
    places.sort_unstable();
    places.dedup();
    let mut links: Vec<(usize, usize)> = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let passing = (0..rings.len()).filter(|r| edges(rings[*r]).any(|e| on_edge(e, *place)));
        let passing: Vec<usize> = passing.collect();
        if passing.len() > 1 {
            links.extend(passing.into_iter().map(|ring| (ring, rings.len() + number)));
        }
    }
    // Take off the ends of chains until nothing changes; what is left is cycles.
    loop {
        let degree = |node| {
            links
                .iter()
                .filter(|(a, b)| *a == node || *b == node)
                .count()
        };
        let keep: Vec<_> = links
            .iter()
            .copied()
            .filter(|(a, b)| degree(*a) > 1 && degree(*b) > 1)
            .collect();
        if keep.len() == links.len() {
            return !links.is_empty();
        }
        links = keep;
    }
}

fn is_valid(polygons: &[Vec<Contour>]) -> bool {
    let rings = || polygons.iter().flatten();
    if !rings().all(|ring| ring.len() >= 3 && is_simple(ring)) {
        return false;
    }
    for (number, polygon) in polygons.iter().enumerate() {
        let (exterior, holes) = polygon.split_first().unwrap();
        if !holes
            .iter()
            .all(|hole| lies(hole, exterior) == Some(Lies::Inside))
        {
            return false;
        }
        for (i, one) in holes.iter().enumerate() {
            for other in &holes[i + 1..] {
                if lies(one, other) != Some(Lies::Outside)
                    || lies(other, one) != Some(Lies::Outside)
                {
                    return false;
                }
            }
        }
        let all: Vec<&Contour> = polygon.iter().collect();
        if touch_in_a_cycle(&all) {
            return false;
        }
        for other in &polygons[number + 1..] {
            if !are_apart(polygon, other) {
                return false;
            }
        }
    }
    true
}

fn are_apart(one: &[Contour], other: &[Contour]) -> bool {
    let in_a_hole = |inner: &[Contour], outer: &[Contour]| {
        outer[1..]
            .iter()
            .any(|hole| lies(&inner[0], hole) == Some(Lies::Inside))
    };
    let meet_well = one
        .iter()
        .all(|a| other.iter().all(|b| lies(a, b).is_some()));
    let apart = lies(&one[0], &other[0]) == Some(Lies::Outside)
        && lies(&other[0], &one[0]) == Some(Lies::Outside);
    meet_well && (apart || in_a_hole(one, other) || in_a_hole(other, one))
}

fn covers(polygons: &[Vec<Contour>], p: Point) -> bool {
    let mut odd = false;
    for ring in polygons.iter().flatten() {
        match inside(ring, p) {
            None => return true,
            Some(inside) => odd ^= inside,
        }
    }
    odd
}

/// Fixed steps, so that a failure comes again.
struct Steps(u64);

impl Steps {
    fn below(&mut self, count: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64).rem_euclid(count)
    }
}

/// A ring of even half degrees with corners that differ from their neighbours.
fn ring(steps: &mut Steps, from: i64, width: i64, corners: i64) -> Contour {
    let mut ring = Contour::new();
    while (ring.len() as i64) < corners {
        let at = (
            2 * (from + steps.below(width + 1)),
            2 * (from + steps.below(width + 1)),
        );
        if ring.last() != Some(&at) && (ring.first() != Some(&at)) {
            ring.push(at);
        }
    }
    ring
}

fn shape(steps: &mut Steps) -> Vec<Vec<Contour>> {
    let rectangle = |a: i64, b: i64| {
        vec![
            (2 * a, 2 * a),
            (2 * b, 2 * a),
            (2 * b, 2 * b),
            (2 * a, 2 * b),
        ]
    };
    match steps.below(4) {
        0 => {
            let corners = 3 + steps.below(5);
            vec![vec![ring(steps, 0, 6, corners)]]
        }
        1 | 2 => {
            let mut polygon = vec![rectangle(steps.below(3), 7)];
            for _ in 0..=steps.below(4) {
                let (from, corners) = (steps.below(5), 3 + steps.below(2));
                polygon.push(ring(steps, from, 3.min(7 - from), corners));
            }
            vec![polygon]
        }
        _ => {
            let mut polygons = vec![vec![rectangle(0, 7), rectangle(1, 6)]];
            for _ in 0..=steps.below(3) {
                let (from, corners) = (steps.below(6), 3 + steps.below(2));
                polygons.push(vec![ring(steps, from, 2.min(7 - from), corners)]);
            }
            if steps.below(2) == 0 {
                polygons.remove(0);
            }
            polygons
        }
    }
}

/// One way to write the same shape: where its left border stands, and how longitudes are written.
#[derive(Clone, Copy, Debug)]
struct Writing {
    west: f64,
    /// Longitudes are written below this, by taking off a turn.
    wrap_from: f64,
}

impl Writing {
    fn position(self, (x, y): Point) -> Position {
        let lon = self.west + x as f64 / 2.0;
        let lon = if lon >= self.wrap_from {
            lon - 360.0
        } else {
            lon
        };
        Position {
            lon,
            lat: y as f64 / 2.0 - 2.0,
        }
    }

    fn raw(self, polygons: &[Vec<Contour>]) -> RawShape {
        let ring = |ring: &Contour| {
            ring.iter()
                .chain(ring.first())
                .map(|p| self.position(*p))
                .collect()
        };
        RawShape::MultiPolygon(
            polygons
                .iter()
                .map(|polygon| polygon.iter().map(ring).collect())
                .collect(),
        )
    }

    /// Where a lookup looks: from -180 to 180.
    fn lookup(self, p: Point) -> Position {
        let at = self.position(p);
        Position {
            lon: if at.lon > 180.0 {
                at.lon - 360.0
            } else {
                at.lon
            },
            ..at
        }
    }
}

const WRITINGS: [Writing; 6] = [
    Writing {
        west: 10.0,
        wrap_from: 400.0,
    },
    Writing {
        west: -3.0,
        wrap_from: 400.0,
    },
    // Across ±180: from 0 to 360, and jumping; grid lines beside the seam.
    Writing {
        west: 176.5,
        wrap_from: 400.0,
    },
    Writing {
        west: 176.5,
        wrap_from: 180.0,
    },
    // Across Greenwich, written from 0 to 360.
    Writing {
        west: 356.5,
        wrap_from: 360.0,
    },
    // The eastern border at 180.
    Writing {
        west: 173.0,
        wrap_from: 400.0,
    },
];

/// Grid lines on the seam: there two polygons may share a line, as shapes cut there do, so one polygon only.
const ON_SEAM: [Writing; 4] = [
    Writing {
        west: 177.0,
        wrap_from: 400.0,
    },
    Writing {
        west: 177.0,
        wrap_from: 180.0,
    },
    Writing {
        west: 177.0,
        wrap_from: 180.5,
    },
    Writing {
        west: 174.0,
        wrap_from: 180.0,
    },
];

/// A debug build takes a part of them.
fn rounds(count: usize) -> usize {
    if cfg!(debug_assertions) {
        count / 30
    } else {
        count
    }
}

#[test]
fn verdicts_and_answers_agree_with_the_naive_judge() {
    let mut steps = Steps(2_026);
    let (mut valid, mut rejected) = (0, std::collections::BTreeMap::new());
    for number in 0..rounds(30_000) {
        let polygons = shape(&mut steps);
        let expected = is_valid(&polygons);
        valid += usize::from(expected);
        let on_seam: &[Writing] = if polygons.len() == 1 { &ON_SEAM } else { &[] };
        for writing in WRITINGS.iter().chain(on_seam) {
            let area = Area::new(writing.raw(&polygons), &ShapeRules::default());
            assert_eq!(
                area.is_ok(),
                expected,
                "{number} {writing:?} {polygons:?}: {:?}",
                area.err().map(|rejection| rejection.to_string())
            );
            match area {
                Ok(area) => check_answers(number, &area, &polygons, *writing),
                Err(rejection) => *rejected.entry(rejection.reason).or_insert(0) += 1,
            }
        }
    }
    println!("{valid} valid, rejected {rejected:?}");
    assert!(valid > rounds(30_000) / 10, "{valid}");
    for reason in [
        RejectionReason::SelfIntersection,
        RejectionReason::RingWithoutArea,
        RejectionReason::RingsIntersect,
        RejectionReason::HoleOutside,
        RejectionReason::PartsOverlap,
        RejectionReason::InteriorDisconnected,
    ] {
        assert!(
            rejected
                .get(&reason)
                .is_some_and(|count| *count > rounds(30_000) / 1_000),
            "{reason}"
        );
    }
}

fn check_answers(number: usize, area: &Area, polygons: &[Vec<Contour>], writing: Writing) {
    let inside = area.interior_point();
    assert!(
        area.covers(inside),
        "{number} {writing:?} {polygons:?} {inside:?}"
    );
    let envelopes = area.envelopes();
    for x in -2..17 {
        for y in -2..17 {
            let at = writing.lookup((x, y));
            let expected = covers(polygons, (x, y));
            assert_eq!(
                area.covers(at),
                expected,
                "{number} {writing:?} {polygons:?} {at:?}"
            );
            assert!(!expected || envelopes.iter().any(|envelope| envelope.covers(at)));
            if at.lon == 180.0 {
                let other = Position { lon: -180.0, ..at };
                assert_eq!(
                    area.covers(other),
                    expected,
                    "{number} {polygons:?} {other:?}"
                );
                assert!(!expected || envelopes.iter().any(|envelope| envelope.covers(other)));
            }
        }
    }
}

#[test]
fn repair_keeps_the_even_odd_area() {
    let rules = ShapeRules {
        on_invalid: OnInvalid::Repair,
        ..ShapeRules::default()
    };
    let mut steps = Steps(77);
    let mut repaired = 0;
    for number in 0..rounds(6_000) {
        let polygons = shape(&mut steps);
        for writing in [WRITINGS[0], WRITINGS[3], ON_SEAM[1]] {
            let area = match Area::new(writing.raw(&polygons), &rules) {
                Ok(area) => area,
                Err(rejection) => {
                    // Rings that lie on each other cancel: there is no area to keep.
                    assert_eq!(
                        rejection.reason,
                        RejectionReason::RepairFailed,
                        "{polygons:?}"
                    );
                    assert!(is_nothing(&polygons), "{number} {polygons:?}: {rejection}");
                    continue;
                }
            };
            repaired += usize::from(!is_valid(&polygons));
            // Beside the grid lines, where no edge passes near.
            for x in 0..14 {
                for y in 0..14 {
                    let corner = writing.position((x, y));
                    let lon = corner.lon + 0.1234;
                    let lon = if lon > 180.0 { lon - 360.0 } else { lon };
                    let at = Position {
                        lon,
                        lat: corner.lat + 0.3217,
                    };
                    let fine = (x as f64 + 0.2468, y as f64 + 0.6434);
                    assert_eq!(
                        area.covers(at),
                        is_odd(&polygons, fine),
                        "{number} {writing:?} {polygons:?} {at:?}"
                    );
                }
            }
        }
    }
    assert!(repaired > rounds(6_000), "{repaired}");
}

fn is_odd(polygons: &[Vec<Contour>], (x, y): (f64, f64)) -> bool {
    let edges = polygons.iter().flatten().flat_map(edges);
    let below = edges.filter(|(a, b)| {
        let (ax, ay, bx, by) = (a.0 as f64, a.1 as f64, b.0 as f64, b.1 as f64);
        (ax <= x) != (bx <= x) && y > ay + (x - ax) / (bx - ax) * (by - ay)
    });
    below.count() % 2 == 1
}

fn is_nothing(polygons: &[Vec<Contour>]) -> bool {
    (0..140).all(|x| {
        (0..140).all(|y| {
            !is_odd(
                polygons,
                (f64::from(x) / 10.0 + 0.0123, f64::from(y) / 10.0 + 0.0217),
            )
        })
    })
}
