//! Promotions of one changed zone. The plain engine merges its trees now and then: what is measured is the mean over many
//! promotions in a row, merges included.

use ringfence::index::Index;
use ringfence::zone::StagedChange;

use crate::support;
use crate::support::measure::{self, Cost, Rounds, Row, Target};

const IN_A_ROW: usize = 1_024;

/// Changes that each put one zone where a neighbour is.
pub(crate) fn moved(side: usize, per_edge: usize) -> Vec<StagedChange> {
    moved_from(0, side, per_edge, IN_A_ROW)
}

/// So many such changes of a tessellation whose first zone has the number `first`.
fn moved_from(first: usize, side: usize, per_edge: usize, count: usize) -> Vec<StagedChange> {
    let zones = side * side;
    (0..count)
        .map(|n| {
            let cell = n * 7_919 % zones;
            let ring = support::cell(side, (cell + 1) % zones, per_edge);
            support::upsert(first + cell, ring, (first + zones + n) as i64)
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
    let side = if measure::is_quick() { 32 } else { 316 };
    let per_edge = 16;
    let changes = support::tessellation(side, per_edge);
    let index = support::index(&changes);
    let moved = moved(side, per_edge);
    let compared = Rounds::measure(
        measure::rounds(),
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

/// The promotion of one zone of a thousand times the area ÷ of a small one with as many vertices: large zones lie over all of
/// the small ones. The bar is our own: in proportion to the border, which grows as the side does, and not to the area.
pub(crate) fn area() {
    let (side, large_side) = if measure::is_quick() {
        (32, 4)
    } else {
        (316, 10)
    };
    let (zones, per_edge) = (side * side, 16);
    let mut changes = support::tessellation(side, per_edge);
    changes.extend(support::tessellation_from(zones, large_side, per_edge));
    let index = support::index(&changes);
    // Each once: the next one of the same zone would meet what the one before left.
    let large = moved_from(zones, large_side, per_edge, large_side * large_side);
    let small = moved(side, per_edge);
    let compared = Rounds::measure(
        measure::rounds(),
        || one_by_one(&index, &large),
        || one_by_one(&index, &small),
    );
    let (above, below) = compared.medians();
    let border = side as f64 / large_side as f64;
    let name = format!(
        "promotion of one zone of {} × the area ({} × the border) ÷ of a small one, {} zones",
        measure::figure(border * border),
        measure::figure(border),
        measure::figure(zones as f64)
    );
    Row {
        what: &name,
        ours: measure::shown(above),
        baseline: measure::shown(below),
        value: compared.ratios(|(large, small)| (large.cpu, small.cpu)),
        target: Target::AtMost(2.0 * border, border),
    }
    .report();
}
