//! The JSON round trip.

use std::hint::black_box;

use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::{FieldRules, Fields};

use crate::support::measure::{self, Rounds, Row, Target};
use crate::support::record::{self, RECORDS};

/// `serde_json::Value` round trip ÷ extract and splice.
pub(crate) fn round_trip() {
    let fields = Fields::new(&FieldRules::default()).expect("the default fields are good");
    let zones = record::zones();
    let records = record::records();
    record::assert_same(&fields, &zones, &records);
    let mut layouts = Layouts::default();
    let at_least = measure::at_least();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let compared = Rounds::measure(
        measure::rounds(),
        || {
            measure::cost_of_repeated(at_least, || {
                for value in &records {
                    black_box(record::ours(
                        &fields,
                        &mut layouts,
                        &zones,
                        black_box(value.as_bytes()),
                        &mut a,
                    ));
                }
            })
            .per(RECORDS)
        },
        || {
            measure::cost_of_repeated(at_least, || {
                for value in &records {
                    black_box(record::plain(&zones, black_box(value.as_bytes()), &mut b));
                }
            })
            .per(RECORDS)
        },
    );
    let (ours, baseline) = compared.medians();
    Row {
        what: "JSON: `serde_json::Value` round trip ÷ ours (extract + splice, 300 B)",
        ours: measure::shown(ours),
        baseline: measure::shown(baseline),
        value: compared.ratios(|(ours, plain)| (plain.cpu, ours.cpu)),
        target: Target::AtLeast(6.0, 15.0),
    }
    .report();
}
