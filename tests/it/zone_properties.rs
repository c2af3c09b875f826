//! `enriched.properties` through the engine and a real index: what the zones carry is in the outputs where it is configured,
//! and in none elsewhere.

use std::sync::Arc;

use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::gate::{Degraded, Epoch, Snapshot};
use ringfence::index::{BuildRules, EngineKind, Index};
use ringfence::pipeline::PipelineConfig;
use ringfence::zone::StagedChange;

use crate::support::worker::{Worker, event};
use crate::support::zones::{change_carrying, rectangle, t};

/// Two zones over one place, of one short and one long id; the short one carries a name.
fn snapshot(kind: EngineKind) -> (Snapshot, String) {
    let carried = ["name".to_owned()];
    let long = "z".repeat(100);
    let zones = [("a", r#""name":"Mitte""#), (&*long, "")];
    let changes: Vec<StagedChange> = zones
        .iter()
        .zip(0..)
        .map(|((id, properties), offset)| {
            let value = rectangle(id, 0.0, 0.0, 1.0, 1.0, properties);
            change_carrying(&carried, 0, offset, 1_000, id, Some(&value))
        })
        .collect();
    let rules = BuildRules {
        history_bytes_max: 1 << 20,
        filing: false,
    };
    let built = Index::empty(kind).promote(&changes, t(9_000), &rules);
    let snapshot = Snapshot {
        index: Arc::new(built.unwrap().index),
        epoch: Epoch(1),
        as_of: t(9_000),
        floor: t(0),
        degraded: Degraded::No,
    };
    (snapshot, long)
}

fn enriched(kind: EngineKind, with_properties: bool) -> (String, String) {
    let rules = FieldRules {
        with_properties,
        ..FieldRules::default()
    };
    let config = PipelineConfig::new(Fields::new(&rules).unwrap(), "telemetry");
    let (snapshot, long) = snapshot(kind);
    let mut worker = Worker::new(config, snapshot, 9_500, &[0]);
    worker.read(0, &event(5_000, 0.5, 0.5));
    let value = worker.written[0].value.clone().unwrap();
    (String::from_utf8(value).unwrap(), long)
}

#[test]
fn outputs_carry_the_properties_of_their_zones_where_these_are_configured() {
    for kind in EngineKind::NAMED {
        let (value, long) = enriched(kind, true);
        let (_, added) = value.split_once(r#""lon":0.5,"#).unwrap();
        assert_eq!(
            added,
            format!(r#""zones":["a","{long}"],"zones_properties":{{"a":{{"name":"Mitte"}}}}}}"#)
        );
    }
}

#[test]
fn outputs_say_nothing_of_properties_where_none_is_configured() {
    for kind in EngineKind::NAMED {
        let (value, long) = enriched(kind, false);
        let (_, added) = value.split_once(r#""lon":0.5,"#).unwrap();
        assert_eq!(added, format!(r#""zones":["a","{long}"]}}"#));
    }
}
