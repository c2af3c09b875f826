//! `verify --against`: feeds two output topics to the comparison ([`crate::verify`]), and says what it found, also of
//! what one of them lacks.

use serde_json::json;

use super::{Part, Ranges, patience, ranges};
use crate::cli::{Context, Failure, Outcome, existing_topic};
use crate::clock::Clock;
use crate::config::Config;
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, End};
use crate::kafka::client::Settings;
use crate::verify::{Comparison, Difference, Known};

/// Partitions that are named.
const NAMED: usize = 10;

/// Compares the enriched topic with `other`.
pub(super) fn run(
    settings: &Settings,
    admin: &Admin,
    config: &Config,
    other: &str,
    overlap: bool,
    context: &Context,
) -> Result<Outcome, Failure> {
    let failed = |why: EdgeError| Failure::failed("cannot verify", why);
    let left = config.enriched.topic.as_str();
    let left_ranges = ranges(admin, left).map_err(failed)?;
    let there = existing_topic(admin, other)?;
    let right_ranges = admin
        .offsets(other, &there.ids(), End::Stable)
        .map_err(failed)?;
    let telemetry = ranges(admin, &config.telemetry.topic).map_err(failed)?;
    let forgets = |ranges: &Ranges| ranges.iter().any(|(_, range)| range.from.0 > 0);
    let known = Known {
        telemetry_from: telemetry
            .iter()
            .map(|(id, range)| (id.0, range.from.0))
            .collect(),
        left_forgets: forgets(&left_ranges),
        right_forgets: forgets(&right_ranges),
    };
    let mut comparison = Comparison::default();
    let mut a = Part::new(settings, left, &left_ranges).map_err(failed)?;
    let mut b = Part::new(settings, other, &right_ranges).map_err(failed)?;
    let mut quiet_since = Clock::mono();
    while !(a.is_done() && b.is_done()) {
        let read = a.poll(|record| comparison.left(record)).map_err(failed)?
            + b.poll(|record| comparison.right(record)).map_err(failed)?;
        if read > 0 {
            quiet_since = Clock::mono();
        }
        patience(quiet_since).map_err(failed)?;
    }
    let found = comparison.finish(&known);
    let is_clean = found.is_clean() || overlap && found.is_same_in_overlap();
    if context.json {
        let mut report = json!(found);
        report["clean"] = json!(is_clean);
        context.report_json(&report);
    } else {
        tell(left, other, &found, is_clean, context);
    }
    Ok(if is_clean {
        Outcome::Done
    } else {
        Outcome::Found
    })
}

fn tell(left: &str, right: &str, found: &Difference, is_clean: bool, context: &Context) {
    context.report(format_args!(
        "{left} against {right}: {} records in both, {} compared, {} different, {} and {} only in one, {} unreadable",
        found.pairs, found.compared, found.different, found.only_left, found.only_right, found.unreadable
    ));
    for line in &found.first {
        context.report(format_args!("  {line}"));
    }
    let beyond = found.beyond_left + found.beyond_right;
    if beyond > 0 {
        context.report(format_args!(
            "beyond what the other covers: {} only in {left}, {} only in {right}; explained: {} (their events are gone from \
             the telemetry topic, or retention took them)",
            found.beyond_left, found.beyond_right, found.explained
        ));
        for line in found.ranges.iter().take(NAMED) {
            context.report(format_args!("  {line}"));
        }
        if found.ranges.len() > NAMED {
            context.report(format_args!("  and {} more", found.ranges.len() - NAMED));
        }
    }
    context.report(match (is_clean, found.unexplained()) {
        (true, 0) => "verdict: the same bytes".to_owned(),
        (true, count) => format!(
            "verdict: the same bytes where both have records (`--overlap`); {count} records are in one alone"
        ),
        (false, count) if found.is_same_in_overlap() => format!(
            "verdict: NOT the same: {count} records are missing in one of them; if it begins later or ends earlier on \
             purpose, say `--overlap`"
        ),
        (false, _) => "verdict: NOT the same".to_owned(),
    });
}
