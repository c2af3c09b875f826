//! What the number of zones and of their vertices costs, as charts: only where charts are wanted.

use std::path::Path;
use std::time::Duration;

use ringfence::index::{Hits, Index};

use crate::plot::{self, Axis, Chart, Scale, Series};
use crate::support::measure::{self, Spread};
use crate::support::plain::Geo;
use crate::{lookup, million, promotion, support};

const VERTICES: [usize; 4] = [16, 64, 256, 1_024];
/// Sides of the worlds between the smallest and the largest: 10 k and 100 k zones.
const SIDES: [usize; 2] = [100, 316];

fn costs(label: &'static str) -> Axis {
    Axis {
        label,
        scale: Scale::Log,
        tick: plot::seconds,
    }
}

fn counts(label: &'static str) -> Axis {
    Axis {
        label,
        scale: Scale::Log,
        tick: plot::count,
    }
}

/// CPU seconds of one lookup: the median of some rounds.
fn lookup_cost(mut all: impl FnMut(), queries: usize) -> f64 {
    let (rounds, at_least) = if measure::is_quick() {
        (1, Duration::ZERO)
    } else {
        (3, Duration::from_millis(200))
    };
    let round = |_| measure::cost_of_repeated(at_least, &mut all).cpu;
    Spread::new((0..rounds).map(round)).median / queries as f64
}

/// The four curves over the number of zones.
struct Growth {
    points: [Vec<(f64, f64)>; 4],
}

impl Growth {
    fn add(&mut self, index: &Index, side: usize) {
        let zones = side * side;
        let queries = lookup::queries(if measure::is_quick() { 4_096 } else { 65_536 }, 23);
        let mut hits = Hits::default();
        let ours = lookup_cost(
            || {
                std::hint::black_box(lookup::answer(index, &queries, &mut hits));
            },
            queries.len(),
        );
        let moved = promotion::moved(side, million::PER_EDGE);
        let promoted = promotion::one_by_one(index, &moved).cpu;
        let geo = Geo::new(support::polygons(side, million::PER_EDGE));
        let by_geo = || {
            queries
                .iter()
                .map(|query| geo.at(query.position.lon, query.position.lat).count())
                .sum::<usize>()
        };
        assert_eq!(
            by_geo(),
            lookup::answer(index, &queries, &mut Hits::default()),
            "both ways find the same zones"
        );
        let looked_up = lookup_cost(
            || {
                std::hint::black_box(by_geo());
            },
            queries.len(),
        );
        let copied = measure::cost_of_repeated(Duration::from_millis(50), || {
            std::hint::black_box(geo.with_moved(zones / 2, zones / 3));
        });
        let found = [ours, looked_up, promoted, copied.cpu];
        for (points, cost) in self.points.iter_mut().zip(found) {
            points.push((zones as f64, cost));
        }
    }
}

/// Lookup and promotion against the number of zones: the two indexes that are there anyway, and those between.
pub(crate) fn zones(folder: &Path, small: &Index, large: &Index) {
    let mut growth = Growth {
        points: Default::default(),
    };
    growth.add(small, 32);
    for side in SIDES {
        if side < million::side() {
            growth.add(
                &support::index(&support::tessellation(side, million::PER_EDGE)),
                side,
            );
        }
    }
    growth.add(large, million::side());
    let [ours, geo, promoted, copied] = growth.points;
    Chart {
        name: "zones",
        title: "Cost against the number of zones",
        below: "zones of 64 vertices, one per place; uniform points, batches of 256; one thread",
        x: counts("zones"),
        y: costs("CPU time of one"),
        series: vec![
            Series::line("lookup, ours", ours),
            Series::line("lookup, rstar + geo", geo),
            Series::line("one-zone promotion, ours", promoted),
            Series::line("copy of the rstar tree, one box moved", copied),
        ],
    }
    .write(folder);
}

/// Lookup and promotion against the vertices of a zone, at a thousand zones.
pub(crate) fn vertices(folder: &Path) {
    let side = 32;
    let queries = lookup::queries(if measure::is_quick() { 1_024 } else { 16_384 }, 29);
    let (mut ours, mut by_geo, mut promoted) = (Vec::new(), Vec::new(), Vec::new());
    for vertices in VERTICES {
        let index = support::index(&support::tessellation(side, vertices / 4));
        let geo = Geo::new(support::polygons(side, vertices / 4));
        let mut hits = Hits::default();
        let cost = lookup_cost(
            || {
                std::hint::black_box(lookup::answer(&index, &queries, &mut hits));
            },
            queries.len(),
        );
        ours.push((vertices as f64, cost));
        let cost = lookup_cost(
            || {
                for query in &queries {
                    std::hint::black_box(geo.at(query.position.lon, query.position.lat).count());
                }
            },
            queries.len(),
        );
        by_geo.push((vertices as f64, cost));
        let moved = promotion::moved(side, vertices / 4);
        let cost = promotion::one_by_one(&index, &moved).cpu;
        promoted.push((vertices as f64, cost));
    }
    Chart {
        name: "vertices",
        title: "Cost against the vertices of a zone",
        below: "1 k zones, one per place; uniform points, batches of 256; one thread",
        x: counts("vertices of a zone"),
        y: costs("CPU time of one"),
        series: vec![
            Series::line("lookup, ours", ours),
            Series::line("lookup, rstar + geo", by_geo),
            Series::line("one-zone promotion, ours", promoted),
        ],
    }
    .write(folder);
}
