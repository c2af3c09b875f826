//! A million zones of 64 vertices: how long they take to come in, what they occupy, and what their number costs.

use rayon::prelude::*;
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::ShapeRules;
use ringfence::index::{BuildRules, Hits, Index};
use ringfence::zone::StagedChange;

use crate::support::measure::{self, Cost, Rounds, Row, Spread, Target};
use crate::{lookup, promotion, support};

/// Points a side of a zone: 64 vertices.
pub(crate) const PER_EDGE: usize = 16;
/// Changes built at once, as the gate builds what it has staged.
const STAGED: usize = 50_000;

/// Zones a side of the large world.
pub(crate) fn side() -> usize {
    if measure::is_quick() { 100 } else { 1_000 }
}

fn name(what: &str) -> String {
    if measure::is_quick() {
        format!("{what} (quick: 10 k instead of 1 M)")
    } else {
        what.to_owned()
    }
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(f64::NAN);
    pages * rustix::param::page_size() as f64
}

/// Takes the zones in from their records' bytes, as the bootstrap does: decode, validate, build, each on all cores but for the
/// filing. Making the bytes is not
/// counted. What the process has grown by is what the index occupies, the allocator's losses included.
pub(crate) fn bootstrap() -> Index {
    let side = side();
    let zones = side * side;
    let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
    let mut index = Index::empty(support::engine());
    let mut spent = Cost::default();
    let mut add = |cost: Cost| {
        spent.wall += cost.wall;
        spent.cpu += cost.cpu;
    };
    let before = resident_bytes();
    let mut values = vec![String::new(); STAGED.min(zones)];
    for first in (0..zones).step_by(STAGED) {
        let count = STAGED.min(zones - first);
        for (place, value) in values[..count].iter_mut().enumerate() {
            support::feature(first + place, side, PER_EDGE, value);
        }
        let (cost, ()) = measure::cost_of(|| {
            let changes: Vec<StagedChange> = values[..count]
                .par_iter()
                .enumerate()
                .map(|(place, value)| staged(first + place, value, &rules))
                .collect();
            // As the gate does it: all but the last part are filed only.
            let rules = BuildRules {
                filing: first + count < zones,
                ..support::RULES
            };
            index = index
                .promote(&changes, support::AS_OF, &rules)
                .expect("it builds")
                .index;
        });
        add(cost);
    }
    drop(values);
    let grown = resident_bytes() - before;
    assert_eq!(index.zone_count(), zones, "every zone is in the index");
    Row {
        what: &name("bootstrap of 1 M zones from memory (decode, validate, build; all cores), s"),
        ours: measure::shown(spent),
        baseline: "–".to_owned(),
        value: Spread::once(spent.wall),
        target: Target::None,
    }
    .report();
    let raw = (zones * (4 * PER_EDGE + 1) * 2 * size_of::<f64>()) as f64;
    Row {
        what: &name("index bytes (resident), exact geometry included ÷ raw f64 coordinate bytes"),
        ours: format!("{} MB", measure::figure(grown / 1e6)),
        baseline: format!("{} MB", measure::figure(raw / 1e6)),
        value: Spread::once(grown / raw),
        target: Target::AtMost(2.0, 1.0),
    }
    .report();
    index
}

fn staged(number: usize, value: &str, rules: &ZoneRules) -> StagedChange {
    let id = support::zone_id(number);
    let decoded = zone_change::decode(Some(id.as_bytes()), Some(value.as_bytes()), rules)
        .expect("the zone is valid");
    support::staged(decoded, number, value.len())
}

/// A lookup among a million zones ÷ among a thousand.
pub(crate) fn lookup(small: &Index, large: &Index) {
    let queries = lookup::queries(262_144, 11);
    let at_least = measure::at_least();
    let (mut a, mut b) = (Hits::default(), Hits::default());
    let compared = Rounds::measure(
        measure::rounds(),
        || lookup::cost(large, &queries, at_least, &mut a),
        || lookup::cost(small, &queries, at_least, &mut b),
    );
    let (above, below) = compared.medians();
    Row {
        what: &name("lookup at 1 M zones ÷ at 1 k zones, batches of 256"),
        ours: measure::shown(above),
        baseline: measure::shown(below),
        value: compared.ratios(|(large, small)| (large.cpu, small.cpu)),
        target: Target::AtMost(4.0, 2.0),
    }
    .report();
}

/// The promotion of one changed zone among a million ÷ among a thousand.
pub(crate) fn promotion(small: &Index, large: &Index) {
    let (in_small, in_large) = (
        promotion::moved(32, PER_EDGE),
        promotion::moved(side(), PER_EDGE),
    );
    let compared = Rounds::measure(
        measure::rounds(),
        || promotion::one_by_one(large, &in_large),
        || promotion::one_by_one(small, &in_small),
    );
    let (above, below) = compared.medians();
    Row {
        what: &name("one-zone promotion at 1 M zones ÷ at 1 k zones (mean of 1,024 in a row)"),
        ours: measure::shown(above),
        baseline: measure::shown(below),
        value: compared.ratios(|(large, small)| (large.cpu, small.cpu)),
        target: Target::AtMost(2.0, 1.1),
    }
    .report();
}
