//! Lookups beside rstar + geo and rstar + y-stripes: synthetic zones of 64 and of 300 vertices, points everywhere and at hot
//! spots, batches of 256. A race counts only once all three gave the same answers.

use std::time::Duration;

use ringfence::geometry::Position;
use ringfence::index::{Hits, Index, Query};
use ringfence::time::EventTime;

use crate::support::measure::{self, Cost, Rounds, Row, Target};
use crate::support::plain::{Geo, YStripes};
use crate::support::{self, Seeded};

/// Queries in a batch.
pub(crate) const BATCH: usize = 256;
/// The vertices a side of the two worlds: 64 and 300 a zone.
const PER_EDGES: [usize; 2] = [16, 75];

/// A query at a place, for the zones as they are.
pub(crate) fn query(lon: f64, lat: f64) -> Query {
    Query {
        position: Position { lon, lat },
        at: EventTime::clamped(1_700_000_000_000),
    }
}

/// Uniform points over the world of the tessellations.
pub(crate) fn queries(count: usize, seed: u64) -> Vec<Query> {
    let mut seeded = Seeded::new(seed);
    (0..count)
        .map(|_| query(seeded.unit(), seeded.unit()))
        .collect()
}

/// Points at hot spots: the k-th most visited cell of a tessellation gets 1/k of what the first one gets (Zipf).
fn hot_spots(side: usize, count: usize, seed: u64) -> Vec<Query> {
    let cells = (side * side) as f64;
    let mut seeded = Seeded::new(seed);
    (0..count)
        .map(|_| {
            // The integer part of a log-uniform number is k with a probability of about 1/k.
            let rank = cells.powf(seeded.unit()) as usize - 1;
            let cell = rank * 7_919 % (side * side);
            let along = |place: usize, part: f64| (place as f64 + part) / side as f64;
            query(
                along(cell % side, seeded.unit()),
                along(cell / side, seeded.unit()),
            )
        })
        .collect()
}

/// Answers all queries in batches; gives the number of zones found.
pub(crate) fn answer(index: &Index, queries: &[Query], hits: &mut Hits) -> usize {
    let mut found = 0;
    for batch in queries.chunks(BATCH) {
        index.lookup(batch, hits);
        found += (0..batch.len())
            .map(|query| hits.of(query).len())
            .sum::<usize>();
    }
    found
}

/// How many zones each query finds.
fn counts(index: &Index, queries: &[Query]) -> Vec<usize> {
    let mut hits = Hits::default();
    let mut counts = Vec::with_capacity(queries.len());
    for batch in queries.chunks(BATCH) {
        index.lookup(batch, &mut hits);
        counts.extend((0..batch.len()).map(|query| hits.of(query).len()));
    }
    counts
}

/// Ours ÷ each baseline, over synthetic zones.
pub(crate) fn baselines() {
    let side = if measure::is_quick() { 32 } else { 100 };
    let count = if measure::is_quick() { 4_096 } else { 65_536 };
    for per_edge in PER_EDGES {
        let index = support::index(&support::tessellation(side, per_edge));
        let geo = Geo::new(support::polygons(side, per_edge));
        let striped = YStripes::new(support::polygons(side, per_edge));
        for (points, queries) in [
            ("uniform points", queries(count, 7)),
            ("hot spots (Zipf)", hot_spots(side, count, 17)),
        ] {
            Race {
                what: &format!(
                    "{} zones of {} vertices, {points}",
                    measure::thousands(side * side),
                    4 * per_edge
                ),
                index: &index,
                geo: &geo,
                striped: &striped,
                queries: &queries,
                differing_max: 0,
                has_target: true,
            }
            .run();
        }
    }
}

/// The same zones and points for all three.
pub(crate) struct Race<'a> {
    pub(crate) what: &'a str,
    pub(crate) index: &'a Index,
    pub(crate) geo: &'a Geo,
    pub(crate) striped: &'a YStripes,
    pub(crate) queries: &'a [Query],
    /// Points that y-stripes, which are not exact on borders, may answer in another way.
    pub(crate) differing_max: usize,
    /// Whether the zones are of the size that DESIGN 12 speaks of: 60 vertices and more.
    pub(crate) has_target: bool,
}

impl Race<'_> {
    /// Two rows: ours ÷ (rstar + geo), ours ÷ (rstar + y-stripes).
    ///
    /// # Panics
    /// If the three do not find the same.
    pub(crate) fn run(&self) {
        let by_geo = |query: &Query| self.geo.at(query.position.lon, query.position.lat).count();
        let by_stripes = |query: &Query| {
            self.striped
                .count_at(query.position.lon, query.position.lat)
        };
        let ours = counts(self.index, self.queries);
        let differing = |baseline: &dyn Fn(&Query) -> usize| {
            let found = self.queries.iter().map(baseline);
            ours.iter().zip(found).filter(|(a, b)| **a != *b).count()
        };
        assert_eq!(differing(&by_geo), 0, "{}: geo differs", self.what);
        let by_rounding = differing(&by_stripes);
        assert!(
            by_rounding <= self.differing_max,
            "{}: y-stripes differ at {by_rounding} points",
            self.what
        );
        measure::say(&format!(
            "  {}: {:.2} zones a point; geo agrees, y-stripes differ at {by_rounding} of {} points",
            self.what,
            ours.iter().sum::<usize>() as f64 / ours.len() as f64,
            ours.len()
        ));
        let target = |must, aim| {
            if self.has_target {
                Target::AtLeast(must, aim)
            } else {
                Target::None
            }
        };
        self.report("rstar + geo", target(10.0, 30.0), &by_geo);
        self.report("rstar + y-stripes", target(4.0, 10.0), &by_stripes);
    }

    fn report(&self, baseline: &str, target: Target, count: &dyn Fn(&Query) -> usize) {
        let at_least = measure::at_least();
        let mut hits = Hits::default();
        let compared = Rounds::measure(
            measure::rounds(),
            || cost(self.index, self.queries, at_least, &mut hits),
            || {
                measure::cost_of_repeated(at_least, || {
                    std::hint::black_box(self.queries.iter().map(count).sum::<usize>());
                })
                .per(self.queries.len())
            },
        );
        let (ours, plain) = compared.medians();
        Row {
            what: &format!("lookups/s per core: ours ÷ ({baseline}), {}", self.what),
            ours: measure::shown(ours),
            baseline: measure::shown(plain),
            value: compared.ratios(|(ours, plain)| (plain.cpu, ours.cpu)),
            target,
        }
        .report();
    }
}

/// What one lookup costs.
pub(crate) fn cost(index: &Index, queries: &[Query], at_least: Duration, hits: &mut Hits) -> Cost {
    measure::cost_of_repeated(at_least, || {
        std::hint::black_box(answer(index, queries, hits));
    })
    .per(queries.len())
}
