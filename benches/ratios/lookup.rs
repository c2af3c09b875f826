//! Lookups beside rstar + geo and rstar + y-stripes: uniform points, zones of 64 vertices, batches of 256.

use std::time::Duration;

use ringfence::geometry::Position;
use ringfence::index::{Hits, Index, Query};
use ringfence::time::EventTime;

use crate::support::measure::{self, Cost, Rounds, Row, Target};
use crate::support::plain::{Geo, YStripes};
use crate::support::{self, Seeded};

/// Queries in a batch.
pub(crate) const BATCH: usize = 256;
const PER_EDGE: usize = 16;

/// Uniform points over the world of the tessellations.
pub(crate) fn queries(count: usize, seed: u64) -> Vec<Query> {
    let mut seeded = Seeded::new(seed);
    (0..count)
        .map(|_| Query {
            position: Position {
                lon: seeded.unit(),
                lat: seeded.unit(),
            },
            at: EventTime::clamped(1_700_000_000_000),
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

/// Rounds, and how long each measures.
pub(crate) fn effort() -> (usize, Duration) {
    if measure::is_quick() {
        (1, Duration::ZERO)
    } else {
        (7, Duration::from_millis(400))
    }
}

/// Ours ÷ each baseline.
pub(crate) fn baselines() {
    let side = 100;
    let queries = queries(65_536, 7);
    let index = support::index(&support::tessellation(side, PER_EDGE));
    let geo = Geo::new(support::rings(side, PER_EDGE));
    let striped = YStripes::new(support::rings(side, PER_EDGE));
    let with_geo = || {
        queries
            .iter()
            .map(|query| geo.at(query.position.lon, query.position.lat).count())
            .sum::<usize>()
    };
    let with_stripes = || {
        queries
            .iter()
            .map(|query| striped.count_at(query.position.lon, query.position.lat))
            .sum::<usize>()
    };
    let mut hits = Hits::default();
    let found = answer(&index, &queries, &mut hits);
    assert_eq!(found, with_geo(), "both ways find the same zones");
    assert_eq!(found, with_stripes(), "both ways find the same zones");
    report(
        "lookups/s per core: ours ÷ (rstar + geo), 10 k zones of 64 vertices",
        Target::AtLeast(10.0, 30.0),
        (&index, &queries),
        &with_geo,
    );
    report(
        "lookups/s per core: ours ÷ (rstar + y-stripes), 10 k zones of 64 vertices",
        Target::AtLeast(4.0, 10.0),
        (&index, &queries),
        &with_stripes,
    );
}

fn report(
    what: &str,
    target: Target,
    (index, queries): (&Index, &[Query]),
    baseline: &dyn Fn() -> usize,
) {
    let (rounds, at_least) = effort();
    let mut hits = Hits::default();
    let compared = Rounds::measure(
        rounds,
        || cost(index, queries, at_least, &mut hits),
        || {
            measure::cost_of_repeated(at_least, || {
                std::hint::black_box(baseline());
            })
            .per(queries.len())
        },
    );
    let (ours, plain) = compared.medians();
    Row {
        what,
        ours: measure::shown(ours),
        baseline: measure::shown(plain),
        value: compared.ratios(|(ours, plain)| (plain.cpu, ours.cpu)),
        target,
    }
    .report();
}

/// What one lookup costs.
pub(crate) fn cost(index: &Index, queries: &[Query], at_least: Duration, hits: &mut Hits) -> Cost {
    measure::cost_of_repeated(at_least, || {
        std::hint::black_box(answer(index, queries, hits));
    })
    .per(queries.len())
}
