//! Which instant an event is matched at: every sentence of DESIGN 4 "Matching", as one pure function.
//!
//! ```text
//!   event time ─► ≤ record timestamp (LogAppendTime) ─► [match_from, match_until] ─► ≥ floor ─► ≤ as_of
//! ```
//!
//! The result is never above `as_of` (I15). Without a flag it is a function of the two logs alone (I10).

use std::time::Duration;

use crate::codec::headers::{Flag, Flags};
use crate::gate::Degraded;
use crate::telemetry::RecordTimestamp;
use crate::time::{EventTime, MonoTime, Now};

/// `gate.match`, with the clamps that only make sense for matching by event time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MatchMode {
    /// At the event's own instant.
    Event {
        /// `gate.match_from`: earlier events are matched here.
        from: Option<EventTime>,
        /// `gate.match_until`: later events are matched here.
        until: Option<EventTime>,
    },
    /// At `as_of`: no wait, no flag, no promise for a replay.
    Latest,
}

/// `gate.on_stall`: what ends the wait of an event that `as_of` does not reach.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OnStall {
    /// After `max_wait` it is matched at `as_of`, flagged `unsettled`.
    Unsettled,
    /// Nothing does.
    Wait,
}

/// `gate.on_late`: what becomes of an event below the floor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OnLate {
    /// It is matched at the floor, flagged `late`.
    Floor,
    /// It is dead-lettered.
    DeadLetter,
}

/// The configured rules of matching.
#[derive(Copy, Clone, Debug)]
pub struct AtRules {
    /// `gate.match`, `match_from`, `match_until`.
    pub mode: MatchMode,
    /// `gate.max_wait_ms`: how long an event may wait from being read.
    pub max_wait: Duration,
    /// `gate.max_ahead_ms`: an event further ahead of T does not wait.
    pub max_ahead: Duration,
    /// `gate.on_stall`.
    pub on_stall: OnStall,
    /// `gate.on_late`.
    pub on_late: OnLate,
}

impl Default for AtRules {
    fn default() -> Self {
        Self {
            mode: MatchMode::Event {
                from: None,
                until: None,
            },
            max_wait: Duration::from_secs(5),
            max_ahead: Duration::from_millis(500),
            on_stall: OnStall::Unsettled,
            on_late: OnLate::Floor,
        }
    }
}

/// What matching needs to know of the snapshot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Up to here everything is in the index.
    pub as_of: EventTime,
    /// From here on answers are exact.
    pub floor: EventTime,
    /// Whether the gate has said that answers are degraded.
    pub degraded: Degraded,
}

/// What is to be done with an event now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is matched at this instant, which is not above `as_of`.
    Match {
        /// The instant.
        at: EventTime,
        /// What is said of the answer.
        flags: Flags,
    },
    /// It waits for `as_of`.
    Wait,
    /// It is below the floor, and late events are dead-lettered.
    Late,
}

/// Decides on an event with time `time` whose record bears `timestamp` and was read at `read_at`.
///
/// | the event's instant, after the cuts | decision |
/// |---|---|
/// | any, `match = latest` | at `as_of`, no flag (but `degraded`) |
/// | below the floor | at the floor or, where that is lower, `as_of`: `late`; or dead-lettered |
/// | ≤ `as_of` | at it |
/// | > `as_of`, snapshot degraded as it stands for long | at `as_of` |
/// | > T + `max_ahead` | at `as_of`, `unsettled`: waiting would not help |
/// | > `as_of`, waited for `max_wait` | at `as_of`, `unsettled`, unless `on_stall = wait` |
/// | > `as_of` otherwise | wait |
///
/// Whatever a degraded snapshot answers is flagged `degraded`; whatever the record timestamp cut by more than
/// `max_ahead` is flagged `future`.
#[must_use]
pub fn decide(
    rules: &AtRules,
    time: EventTime,
    timestamp: RecordTimestamp,
    read_at: MonoTime,
    view: View,
    now: Now,
) -> Decision {
    let mut flags = Flags::NONE;
    if view.degraded.is_flagged() {
        flags.set(Flag::Degraded);
    }
    let (from, until) = match rules.mode {
        MatchMode::Latest => {
            return Decision::Match {
                at: view.as_of,
                flags,
            };
        }
        MatchMode::Event { from, until } => (from, until),
    };
    let mut at = time;
    // Nothing happens after it was stored: a later event time is a wrong clock.
    if let RecordTimestamp::LogAppend(stored) = timestamp
        && stored < at
    {
        if at.since(stored) > rules.max_ahead {
            flags.set(Flag::Future);
        }
        at = stored;
    }
    at = from.map_or(at, |from| at.max(from));
    at = until.map_or(at, |until| at.min(until));
    if at < view.floor {
        return match rules.on_late {
            OnLate::DeadLetter => Decision::Late,
            // A floor above as_of is not reached yet; waiting for it would not make this event less late.
            OnLate::Floor => Decision::Match {
                at: view.floor.min(view.as_of),
                flags: flags.with(Flag::Late),
            },
        };
    }
    if at <= view.as_of {
        return Decision::Match { at, flags };
    }
    if view.degraded == Degraded::AtOnce {
        return Decision::Match {
            at: view.as_of,
            flags,
        };
    }
    let beyond = at > now.wall.plus(rules.max_ahead);
    let waited = now.mono.since(read_at) >= rules.max_wait && rules.on_stall == OnStall::Unsettled;
    if beyond || waited {
        Decision::Match {
            at: view.as_of,
            flags: flags.with(Flag::Unsettled),
        }
    } else {
        Decision::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_OF: i64 = 10_000;
    const FLOOR: i64 = 5_000;
    const WALL: i64 = 10_300;

    fn t(millis: i64) -> EventTime {
        EventTime::clamped(millis)
    }

    fn create() -> RecordTimestamp {
        RecordTimestamp::Create(t(1))
    }

    fn stored(millis: i64) -> RecordTimestamp {
        RecordTimestamp::LogAppend(t(millis))
    }

    fn view() -> View {
        View {
            as_of: t(AS_OF),
            floor: t(FLOOR),
            degraded: Degraded::No,
        }
    }

    fn degraded() -> View {
        View {
            degraded: Degraded::AtOnce,
            ..view()
        }
    }

    fn flagged() -> View {
        View {
            degraded: Degraded::Flagged,
            ..view()
        }
    }

    /// `waited` = how long ago the event was read.
    fn ask(
        rules: &AtRules,
        time: i64,
        stamp: RecordTimestamp,
        view: View,
        waited: Duration,
    ) -> String {
        let read_at = MonoTime::from_micros(1_000_000);
        let now = Now {
            mono: read_at.plus(waited),
            wall: t(WALL),
        };
        match decide(rules, t(time), stamp, read_at, view, now) {
            Decision::Wait => "wait".to_owned(),
            Decision::Late => "dead letter".to_owned(),
            Decision::Match { at, flags } if flags.is_empty() => format!("{at:?}"),
            Decision::Match { at, flags } => format!("{at:?} {flags}"),
        }
    }

    #[test]
    fn every_row_of_the_table_is_as_the_design_says() {
        let plain = AtRules::default();
        let waiting = AtRules {
            on_stall: OnStall::Wait,
            ..plain
        };
        let letters = AtRules {
            on_late: OnLate::DeadLetter,
            ..plain
        };
        let latest = AtRules {
            mode: MatchMode::Latest,
            ..plain
        };
        let clamp = |from, until| AtRules {
            mode: MatchMode::Event { from, until },
            ..plain
        };
        let one_instant = clamp(Some(t(7_000)), Some(t(7_000)));
        let above = View {
            floor: t(AS_OF + 50),
            ..view()
        };
        let none = Duration::ZERO;
        let long = plain.max_wait;
        let short = plain.max_wait - Duration::from_micros(1);
        let rows: &[(&str, &AtRules, i64, RecordTimestamp, View, Duration, &str)] = &[
            ("settled", &plain, 9_000, create(), view(), none, "9000"),
            (
                "settled at as_of itself",
                &plain,
                AS_OF,
                create(),
                view(),
                none,
                "10000",
            ),
            (
                "one above as_of waits",
                &plain,
                AS_OF + 1,
                create(),
                view(),
                none,
                "wait",
            ),
            (
                "waits until max_wait",
                &plain,
                AS_OF + 1,
                create(),
                view(),
                short,
                "wait",
            ),
            (
                "then unsettled",
                &plain,
                AS_OF + 1,
                create(),
                view(),
                long,
                "10000 unsettled",
            ),
            (
                "on_stall wait",
                &waiting,
                AS_OF + 1,
                create(),
                view(),
                long,
                "wait",
            ),
            (
                "at T + max_ahead waits",
                &plain,
                WALL + 500,
                create(),
                view(),
                none,
                "wait",
            ),
            (
                "beyond max_ahead at once",
                &plain,
                WALL + 501,
                create(),
                view(),
                none,
                "10000 unsettled",
            ),
            (
                "beyond never waits",
                &waiting,
                WALL + 501,
                create(),
                view(),
                none,
                "10000 unsettled",
            ),
            (
                "create time cuts nothing",
                &plain,
                9_000,
                RecordTimestamp::Create(t(8_000)),
                view(),
                none,
                "9000",
            ),
            (
                "no timestamp cuts nothing",
                &plain,
                9_000,
                RecordTimestamp::Missing,
                view(),
                none,
                "9000",
            ),
            (
                "stored time cuts",
                &plain,
                9_000,
                stored(8_999),
                view(),
                none,
                "8999",
            ),
            (
                "stored later cuts nothing",
                &plain,
                9_000,
                stored(9_500),
                view(),
                none,
                "9000",
            ),
            (
                "cut by max_ahead is not future",
                &plain,
                9_500,
                stored(9_000),
                view(),
                none,
                "9000",
            ),
            (
                "cut by more is",
                &plain,
                9_501,
                stored(9_000),
                view(),
                none,
                "9000 future",
            ),
            (
                "cut, then waits",
                &plain,
                99_000,
                stored(AS_OF + 1),
                view(),
                none,
                "wait",
            ),
            (
                "cut, then unsettled",
                &plain,
                99_000,
                stored(AS_OF + 1),
                view(),
                long,
                "10000 unsettled,future",
            ),
            (
                "floor itself is exact",
                &plain,
                FLOOR,
                create(),
                view(),
                none,
                "5000",
            ),
            (
                "below the floor is late",
                &plain,
                FLOOR - 1,
                create(),
                view(),
                none,
                "5000 late",
            ),
            (
                "late may be dead-lettered",
                &letters,
                FLOOR - 1,
                create(),
                view(),
                none,
                "dead letter",
            ),
            (
                "on_late spares the others",
                &letters,
                FLOOR,
                create(),
                view(),
                none,
                "5000",
            ),
            (
                "cut below the floor",
                &plain,
                9_000,
                stored(4_000),
                view(),
                none,
                "5000 late,future",
            ),
            (
                "floor above as_of",
                &plain,
                9_000,
                create(),
                above,
                none,
                "10000 late",
            ),
            (
                "match_from lifts",
                &clamp(Some(t(6_000)), None),
                1,
                create(),
                view(),
                none,
                "6000",
            ),
            (
                "match_until lowers",
                &clamp(None, Some(t(6_000))),
                99_000,
                create(),
                view(),
                none,
                "6000",
            ),
            (
                "inside the clamp",
                &clamp(Some(t(6_000)), Some(t(8_000))),
                7_500,
                create(),
                view(),
                none,
                "7500",
            ),
            (
                "one instant, early",
                &one_instant,
                1,
                create(),
                view(),
                none,
                "7000",
            ),
            (
                "one instant, far ahead",
                &one_instant,
                99_000,
                create(),
                view(),
                none,
                "7000",
            ),
            (
                "record time before match_from",
                &one_instant,
                99_000,
                stored(3),
                view(),
                none,
                "7000 future",
            ),
            (
                "floor after match_until",
                &clamp(None, Some(t(4_000))),
                9_000,
                create(),
                view(),
                none,
                "5000 late",
            ),
            (
                "match_from above as_of waits",
                &clamp(Some(t(AS_OF + 9)), None),
                1,
                create(),
                view(),
                none,
                "wait",
            ),
            ("latest", &latest, 9_000, create(), view(), none, "10000"),
            (
                "latest never waits nor flags",
                &latest,
                99_000,
                stored(1),
                view(),
                none,
                "10000",
            ),
            (
                "latest below the floor",
                &latest,
                1,
                create(),
                view(),
                none,
                "10000",
            ),
            (
                "degraded, settled",
                &plain,
                9_000,
                create(),
                degraded(),
                none,
                "9000 degraded",
            ),
            (
                "degraded does not wait",
                &waiting,
                AS_OF + 1,
                create(),
                degraded(),
                none,
                "10000 degraded",
            ),
            (
                "flagged for a late change, it waits as ever",
                &plain,
                AS_OF + 1,
                create(),
                flagged(),
                none,
                "wait",
            ),
            (
                "flagged for a late change, settled",
                &plain,
                9_000,
                create(),
                flagged(),
                none,
                "9000 degraded",
            ),
            (
                "degraded and late",
                &plain,
                1,
                create(),
                degraded(),
                none,
                "5000 late,degraded",
            ),
            (
                "degraded, latest",
                &latest,
                1,
                create(),
                degraded(),
                none,
                "10000 degraded",
            ),
        ];
        for (what, rules, time, stamp, view, waited, expected) in rows {
            assert_eq!(
                ask(rules, *time, *stamp, *view, *waited),
                *expected,
                "{what}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn i15_nothing_is_matched_above_as_of(
            time in 0i64..20_000, cut in proptest::option::of(0i64..20_000), as_of in 0i64..20_000,
            floor in 0i64..20_000, wall in 0i64..20_000, waited in 0u64..10_000,
            from in proptest::option::of(0i64..20_000), until in proptest::option::of(0i64..20_000),
            degraded in 0usize..3, latest: bool,
        ) {
            let mode = if latest { MatchMode::Latest } else {
                MatchMode::Event { from: from.map(t), until: until.map(t) }
            };
            let rules = AtRules { mode, ..AtRules::default() };
            let degraded = [Degraded::No, Degraded::Flagged, Degraded::AtOnce][degraded];
            let view = View { as_of: t(as_of), floor: t(floor), degraded };
            let now = Now { mono: MonoTime::from_micros(waited * 1_000), wall: t(wall) };
            let stamp = cut.map_or(create(), stored);
            if let Decision::Match { at, flags } =
                decide(&rules, t(time), stamp, MonoTime::default(), view, now)
            {
                proptest::prop_assert!(at <= view.as_of);
                // I10: without a flag the instant follows from the two records alone.
                if flags.is_empty() && !latest {
                    let cut = cut.map_or(time, |cut| cut.min(time));
                    let clamped = from.map_or(cut, |from| cut.max(from));
                    let clamped = until.map_or(clamped, |until| clamped.min(until));
                    proptest::prop_assert_eq!(at, t(clamped));
                }
            }
        }
    }
}
