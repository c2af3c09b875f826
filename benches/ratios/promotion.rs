//! Promotions of one changed zone. The plain engine merges its trees now and then: what is measured is the mean over many
//! promotions in a row, merges included.

use ringfence::index::Index;
use ringfence::zone::StagedChange;

use crate::support;
use crate::support::measure::{self, Cost, Rounds, Row, Target};

const IN_A_ROW: usize = 1_024;

/// Changes that each put one zone where a neighbour is.
pub(crate) fn moved(side: usize, per_edge: usize) -> Vec<StagedChange> {
    let zones = side * side;
    (0..IN_A_ROW)
        .map(|n| {
            let number = n * 7_919 % zones;
            let ring = support::cell(side, (number + 1) % zones, per_edge);
            support::upsert(number, ring, (zones + n) as i64)
        })
        .collect()
}

/// What the promotion of one change costs.
pub(crate) fn one_by_one(index: &Index, changes: &[StagedChange]) -> Cost {
    let mut index = index.clone();
    let (cost, ()) = measure::cost_of(|| {
        for change in changes {
            index = index
                .promote(
                    std::slice::from_ref(change),
                    support::AS_OF,
                    &support::RULES,
                )
                .expect("it builds")
                .index;
        }
    });
    cost.per(changes.len())
}

/// The full rebuild ÷ the promotion of one zone.
pub(crate) fn rebuild() {
    let (side, rounds) = if measure::is_quick() {
        (32, 1)
    } else {
        (316, 5)
    };
    let per_edge = 16;
    let changes = support::tessellation(side, per_edge);
    let index = support::index(&changes);
    let moved = moved(side, per_edge);
    let compared = Rounds::measure(
        rounds,
        || one_by_one(&index, &moved),
        || measure::cost_of(|| support::index(&changes)).0,
    );
    let (one, all) = compared.medians();
    let name = format!(
        "full rebuild ÷ one-zone promotion, {} zones",
        measure::figure((side * side) as f64)
    );
    Row {
        what: &name,
        ours: measure::shown(one),
        baseline: measure::shown(all),
        value: compared.ratios(|(one, all)| (all.cpu, one.cpu)),
        target: Target::AtLeast(2_000.0, 30_000.0),
    }
    .report();
}
