//! What a run has come to: the faults by kind, and what the audit found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// What the configuration promises.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    ExactlyOnce,
    AtLeastOnce,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

/// The audit's findings, in four numbers.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) lost: u64,
    pub(super) duplicate: u64,
    /// With all that is neither of the others: outputs of nothing, commits before their outputs.
    pub(super) wrong: u64,
    pub(super) reordered: u64,
}

impl Findings {
    pub(super) fn of(report: &Value) -> Self {
        let mut found = Self::default();
        for (kind, partitions) in report["findings"].as_object().into_iter().flatten() {
            let tallies = partitions.as_object().into_iter().flatten();
            let count = tallies
                .map(|(_, one)| one["count"].as_u64().expect("a count"))
                .sum::<u64>();
            *match kind.as_str() {
                "lost" => &mut found.lost,
                "duplicate" => &mut found.duplicate,
                "reordered" => &mut found.reordered,
                _ => &mut found.wrong,
            } += count;
        }
        found
    }

    pub(super) fn is_allowed(self, mode: Mode) -> bool {
        let Self {
            lost,
            duplicate,
            wrong,
            reordered,
        } = self;
        lost + wrong + reordered == 0 && (duplicate == 0 || mode == Mode::AtLeastOnce)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lost,
            duplicate,
            wrong,
            reordered,
        } = self;
        write!(
            f,
            "lost {lost} / duplicate {duplicate} / wrong {wrong} / reordered {reordered}"
        )
    }
}

/// Counted while it runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// That no change was promoted too early, and that as much befell the processes as ten minutes are to have.
    pub(super) fn assert_enough(&self, length: Duration) {
        let count = |what: &str| self.counts.get(what).copied().unwrap_or(0);
        assert_eq!(count("gate violations"), 0, "{self}");
        let tens_of_minutes = length.as_secs_f64() / 600.0;
        for (what, least) in [
            ("kill -9", 30.0),
            ("broker kill -9", 5.0),
            ("assignments", 10.0),
        ] {
            let least = (least * tens_of_minutes).floor() as u64;
            assert!(count(what) >= least, "fewer than {least} of {what}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        f.write_str(&list.join(", "))
    }
}

#[test]
fn findings_of_any_kind_count_and_only_duplicates_may_be() {
    let report = |kind: &str| {
        let text = format!(
            r#"{{"findings":{{"{kind}":{{"0":{{"count":2,"first":[1]}},"3":{{"count":1,"first":[5]}}}}}}}}"#
        );
        Findings::of(&serde_json::from_str(&text).unwrap())
    };
    assert_eq!(
        report("duplicate"),
        Findings {
            duplicate: 3,
            ..Findings::default()
        }
    );
    assert!(report("duplicate").is_allowed(Mode::AtLeastOnce));
    assert!(!report("duplicate").is_allowed(Mode::ExactlyOnce));
    for kind in [
        "lost",
        "wrong",
        "reordered",
        "jigsaw",
        "orphan",
        "unread",
        "committed_early",
    ] {
        for mode in [Mode::AtLeastOnce, Mode::ExactlyOnce] {
            assert!(!report(kind).is_allowed(mode), "{kind}");
        }
    }
    let clean = Findings::of(&serde_json::from_str(r#"{"findings":{}}"#).unwrap());
    assert!(clean.is_allowed(Mode::ExactlyOnce));
}
