//! Scenarios of the pipeline as text, and its properties under random waits, acknowledgements and rebalances.
//!
//! A scenario is a transcript: [`check`] runs its lines, and what the engine gives out after each must be the `>` lines
//! that stand below it. Times are in milliseconds.
//!
//! | line | meaning |
//! |---|---|
//! | `set KEY=VALUE…` | configuration, before the first record: `match`, `from`, `until`, `max_wait`, `max_ahead`, `on_stall`, `on_late`, `on_invalid`, `breaker=PERCENT:WINDOW:RETRY` |
//! | `zone P:O COMMIT ID box W S E N [effective_at=T] [expires_at=T]` | an upsert in the zones log |
//! | `zone P:O COMMIT ID circle LON LAT RADIUS […]`, `zone P:O COMMIT ID gone` | another shape; a tombstone |
//! | `as_of T [floor=T] [degraded\|flagged]` | a new snapshot head, and a turn |
//! | `now T` | the wall clock, without a turn |
//! | `wait MS` | both clocks move on, and a turn |
//! | `read P TIME LON LAT [stored=T] [created=T]`, `raw P TEXT` | a telemetry record at the partition's next offset |
//! | `> P:O IDS at T [FLAGS]`, `> P:O dead letter REASON`, `> P:O forwarded FLAGS` | an output |

use std::time::Duration;

use proptest::prelude::*;
use ringfence::codec::headers;
use ringfence::gate::Degraded;
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::{
    AckResult, BreakerRules, Limits, MatchMode, OnInvalid, OnLate, OnStall, PipelineConfig,
    Refusal, View,
};
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::EventTime;

use crate::support::worker::{Worker, Written, config, event};
use crate::support::zones::{PlainZones, change, rectangle, t};

/// Runs a scenario and compares its transcript.
fn check(name: &str) {
    let path = format!(
        "{}/tests/fixtures/scenarios/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut transcript = String::new();
    let mut scenario = Scenario::new();
    for (number, line) in expected.lines().enumerate() {
        if line.starts_with('>') {
            continue;
        }
        transcript.push_str(line);
        transcript.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words[0] == "#" {
            continue;
        }
        scenario
            .run(&words, line)
            .unwrap_or_else(|| panic!("{path}:{}: {line}", number + 1));
        for out in scenario.new_outputs() {
            transcript.push_str(&describe(&out));
            transcript.push('\n');
        }
    }
    assert!(transcript == expected, "{path}:\n{transcript}<<<");
    assert!(
        expected.contains("\n>"),
        "{path}: a scenario expects something"
    );
}

fn describe(out: &Written) -> String {
    let source = out.source;
    if let Some(reason) = out.header(headers::ERROR_REASON) {
        return format!("> {source} dead letter {reason}");
    }
    let flags = out.flags();
    let Some(at) = out.header(headers::AT) else {
        return format!("> {source} forwarded {flags}");
    };
    let value: serde_json::Value = serde_json::from_str(out.text()).unwrap();
    let flags = if flags.is_empty() {
        String::new()
    } else {
        format!(" {flags}")
    };
    format!("> {source} {} at {at}{flags}", value["zones"])
}

struct Scenario {
    config: PipelineConfig,
    worker: Option<Worker<PlainZones>>,
    zones: PlainZones,
    wall: i64,
    seen: usize,
}

impl Scenario {
    fn new() -> Self {
        let zones = PlainZones::new(0);
        Self {
            config: config(),
            worker: None,
            zones,
            wall: 0,
            seen: 0,
        }
    }

    fn worker(&mut self) -> &mut Worker<PlainZones> {
        let (config, zones, wall) = (&self.config, &self.zones, self.wall);
        self.worker
            .get_or_insert_with(|| Worker::new(config.clone(), zones.clone(), wall, &[0, 1]))
    }

    fn new_outputs(&mut self) -> Vec<Written> {
        let Some(worker) = &self.worker else {
            return Vec::new();
        };
        let new = worker.written[self.seen..].to_vec();
        self.seen = worker.written.len();
        new
    }

    /// `None` = the line is not understood.
    fn run(&mut self, words: &[&str], line: &str) -> Option<()> {
        let options = |words: &[&str], key: &str| {
            words.iter().find_map(|word| {
                word.strip_prefix(key)?
                    .strip_prefix('=')?
                    .parse::<i64>()
                    .ok()
            })
        };
        match words {
            ["set", options @ ..] => {
                assert!(
                    self.worker.is_none(),
                    "configuration comes before the first record"
                );
                options.iter().try_for_each(|option| self.set(option))?;
            }
            ["zone", position, commit, id, shape @ ..] => {
                let (partition, offset) = position.split_once(':')?;
                let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
                let value = zone_value(id, shape);
                let change = change(
                    partition,
                    offset,
                    commit.parse().ok()?,
                    id,
                    value.as_deref(),
                );
                self.zones.changes.push(change);
            }
            ["as_of", as_of, rest @ ..] => {
                self.zones.view = View {
                    as_of: t(as_of.parse().ok()?),
                    floor: options(rest, "floor").map_or(self.zones.view.floor, t),
                    degraded: match rest.contains(&"degraded") {
                        true => Degraded::AtOnce,
                        false if rest.contains(&"flagged") => Degraded::Flagged,
                        false => Degraded::No,
                    },
                };
                if let Some(worker) = &mut self.worker {
                    worker.zones = self.zones.clone();
                    worker.turn();
                }
            }
            ["now", wall] => {
                self.wall = wall.parse().ok()?;
                let wall = t(self.wall);
                self.worker().now.wall = wall;
            }
            ["wait", millis] => {
                let by = Duration::from_millis(millis.parse().ok()?);
                self.worker().wait(by);
                self.worker().turn();
            }
            ["read", partition, time, lon, lat, rest @ ..] => {
                let value = event(time.parse().ok()?, lon.parse().ok()?, lat.parse().ok()?);
                let created = options(rest, "created").map(|at| RecordTimestamp::Create(t(at)));
                let stored = options(rest, "stored").map(|at| RecordTimestamp::LogAppend(t(at)));
                let stamp = stored.or(created).unwrap_or(RecordTimestamp::Missing);
                let partition = partition.parse().ok()?;
                self.worker()
                    .read_as(partition, None, Some(value.as_bytes()), stamp);
            }
            ["raw", partition, ..] => {
                let text = line.splitn(3, ' ').nth(2)?;
                let partition = partition.parse().ok()?;
                self.worker().read(partition, text);
            }
            _ => return None,
        }
        Some(())
    }

    fn set(&mut self, option: &str) -> Option<()> {
        let (key, value) = option.split_once('=')?;
        let at = &mut self.config.at;
        let instant = || value.parse().ok().map(t);
        match (key, value) {
            ("match", "latest") => at.mode = MatchMode::Latest,
            ("from", _) => match &mut at.mode {
                MatchMode::Event { from, .. } => *from = Some(instant()?),
                MatchMode::Latest => return None,
            },
            ("until", _) => match &mut at.mode {
                MatchMode::Event { until, .. } => *until = Some(instant()?),
                MatchMode::Latest => return None,
            },
            ("max_wait", _) => at.max_wait = Duration::from_millis(value.parse().ok()?),
            ("max_ahead", _) => at.max_ahead = Duration::from_millis(value.parse().ok()?),
            ("on_stall", "wait") => at.on_stall = OnStall::Wait,
            ("on_late", "dead_letter") => at.on_late = OnLate::DeadLetter,
            ("on_invalid", "forward") => self.config.on_invalid = OnInvalid::Forward,
            ("breaker", _) => {
                let mut numbers = value.split(':').map(str::parse::<u32>);
                let mut next = || numbers.next()?.ok();
                self.config.breaker = BreakerRules {
                    percent: next()?,
                    window: next()?,
                    retry: Duration::from_millis(next()?.into()),
                };
            }
            ("on_invalid", "drop") => self.config.on_invalid = OnInvalid::Drop,
            _ => return None,
        }
        Some(())
    }
}

/// `None` = a tombstone.
fn zone_value(id: &str, shape: &[&str]) -> Option<String> {
    let number = |at: usize| shape[at].parse::<f64>().unwrap();
    let more: Vec<String> = shape
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| format!(r#""{key}":{value}"#))
        .collect();
    let more = more.join(",");
    match shape[0] {
        "gone" => None,
        "box" => Some(rectangle(
            id,
            number(1),
            number(2),
            number(3),
            number(4),
            &more,
        )),
        "circle" => {
            let more = if more.is_empty() {
                more
            } else {
                format!(",{more}")
            };
            Some(format!(
                r#"{{"type":"Feature","id":"{id}","properties":{{"radius_m":{}{more}}},"geometry":{{"type":"Point","coordinates":[{},{}]}}}}"#,
                number(3),
                number(1),
                number(2)
            ))
        }
        other => panic!("no shape `{other}`"),
    }
}

#[test]
fn a_settled_event_gets_the_zones_of_its_own_time() {
    check("as-of-own-time");
}

#[test]
fn an_unsettled_event_waits_and_everything_behind_it_too() {
    check("wait");
}

#[test]
fn an_event_that_as_of_does_not_reach_is_flagged_unsettled() {
    check("unsettled");
}

#[test]
fn on_stall_wait_waits_for_ever_but_not_for_an_event_far_ahead() {
    check("on-stall-wait");
}

#[test]
fn an_event_below_the_floor_is_late() {
    check("late");
}

#[test]
fn an_event_time_after_its_record_is_cut_and_flagged_future() {
    check("future");
}

#[test]
fn latest_answers_at_once_at_as_of() {
    check("latest");
}

#[test]
fn match_from_and_until_clamp_every_event() {
    check("clamp");
}

#[test]
fn both_halves_of_a_jigsaw_move_act_at_one_instant() {
    check("jigsaw");
}

#[test]
fn a_later_change_cancels_what_was_scheduled() {
    check("schedule");
}

#[test]
fn a_degraded_snapshot_answers_at_once_and_says_so() {
    check("degraded");
}

#[test]
fn invalid_records_go_where_the_configuration_says() {
    check("invalid");
}

#[test]
fn fs_44_a_partition_of_invalid_records_is_held_and_goes_on_in_order_by_probes() {
    check("breaker");
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    /// Records of one partition: how far the event lies from now, the offset gap, and whether it is valid.
    Read(i32, Vec<(i64, i64, bool)>),
    Wait(u64),
    /// `as_of` follows the wall clock at this distance.
    AsOf(i64),
    Ack(prop::sample::Index),
    Refuse(prop::sample::Index),
    AckAll,
    Commit,
    Revoke(i32),
    Lose(i32),
    Assign(i32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (-2_000i64..1_200, 1i64..4, prop::bool::weighted(0.9));
    let step = prop_oneof![
        8 => (0..3, prop::collection::vec(record, 1..8)).prop_map(|(p, records)| Step::Read(p, records)),
        3 => (0u64..700).prop_map(Step::Wait),
        4 => (0i64..600).prop_map(Step::AsOf),
        6 => any::<prop::sample::Index>().prop_map(Step::Ack),
        1 => any::<prop::sample::Index>().prop_map(Step::Refuse),
        2 => Just(Step::AckAll),
        2 => Just(Step::Commit),
        1 => (0..3).prop_map(Step::Revoke),
        1 => (0..3).prop_map(Step::Lose),
        2 => (0..3).prop_map(Step::Assign),
    ];
    prop::collection::vec(step, 1..80)
}

/// What a partition's records are, told by the test itself.
#[derive(Default)]
struct Naive {
    owned: bool,
    /// Offset of each record read in this ownership.
    read: Vec<i64>,
    next: i64,
}

impl Naive {
    /// By the words of I6: right after the longest prefix whose records all have an acknowledged output.
    fn committable(&self, acked: &[(i32, i64)], partition: i32) -> Option<Offset> {
        let finished = |offset: &&i64| acked.contains(&(partition, **offset));
        self.read
            .iter()
            .take_while(finished)
            .last()
            .map(|offset| Offset(offset + 1))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I5, I7, I8 and I15 are asserted by `Worker` after every step; here I6 and I10: what is committable, and every value.
    #[test]
    fn i6_i8_i10_hold_under_random_waits_acks_and_rebalances(steps in steps()) {
        const START: i64 = 1_000_000;
        let mut zones = PlainZones::new(START - 300);
        // Two halves that swap places at START and back again a second later.
        for (offset, (time, left, right)) in [(0, -1.0, 1.0), (START, 1.0, -1.0), (START + 1_000, -1.0, 1.0)].into_iter().enumerate() {
            for (partition, id, side) in [(0, "l", left), (1, "r", right)] {
                let (west, east) = if side < 0.0 { (-1.0, 0.0) } else { (0.0, 1.0) };
                let shape = rectangle(id, west, -1.0, east, 1.0, "");
                zones.changes.push(change(partition, offset as i64, time, id, Some(&shape)));
            }
        }
        let limits = Limits { hold_max: 12, in_flight_max: 6, ..Limits::default() };
        // Opens now and then: records wait in hold for another reason.
        let breaker = BreakerRules { percent: 20, window: 10, retry: Duration::from_millis(500) };
        let config = PipelineConfig { limits, breaker, one_by_one: true, ..config() };
        let mut worker = Worker::new(config, zones, START, &[0]);
        let mut naive: [Naive; 3] = Default::default();
        naive[0].owned = true;
        let mut acked: Vec<(i32, i64)> = Vec::new();
        let mut seen = 0;
        for step in steps {
            match step {
                Step::Read(partition, records) => {
                    let state = &mut naive[partition as usize];
                    let wall = worker.now.wall.millis();
                    worker.ask_flow();
                    let room = if state.owned { worker.flow.take } else { usize::MAX };
                    let values: Vec<(i64, String)> = records.iter().take(room).map(|(ahead, gap, valid)| {
                        state.next += gap;
                        let value = if *valid { event(wall + ahead, 0.5, 0.5) } else { "{".to_owned() };
                        (state.next, value)
                    }).collect();
                    let batch: Vec<_> = values.iter().map(|(offset, value)| RecordRef {
                        partition: PartitionId(partition),
                        offset: Offset(*offset),
                        timestamp: RecordTimestamp::Missing,
                        key: None,
                        value: Some(value.as_bytes()),
                        headers: &[],
                    }).collect();
                    worker.ingest(&batch);
                    if state.owned {
                        state.read.extend(values.iter().map(|(offset, _)| *offset));
                    }
                }
                Step::Wait(millis) => {
                    worker.wait(Duration::from_millis(millis));
                    worker.turn();
                }
                Step::AsOf(behind) => {
                    let as_of = worker.now.wall.minus(Duration::from_millis(behind as u64));
                    worker.zones.view.as_of = as_of.max(worker.zones.view.as_of);
                    worker.turn();
                }
                Step::Ack(which) | Step::Refuse(which) if worker.unacked.is_empty() => { let _ = which; }
                Step::Ack(which) => {
                    let token = *which.get(&worker.unacked);
                    finished(&mut acked, &worker, token);
                    worker.ack(token, AckResult::Delivered);
                }
                Step::Refuse(which) => {
                    let token = *which.get(&worker.unacked);
                    // Not a bare dead letter again: that one would stop the worker, rightly.
                    let sent = worker.written.iter().filter(|out| out.token == token).count();
                    if sent == 1 {
                        worker.ack(token, AckResult::Refused(Refusal::TooLarge));
                        worker.turn();
                    }
                }
                Step::AckAll => {
                    for token in worker.unacked.clone() { finished(&mut acked, &worker, token); }
                    worker.ack_all();
                }
                Step::Commit => { worker.commit(0); }
                Step::Revoke(partition) | Step::Lose(partition) => {
                    let state = &mut naive[partition as usize];
                    if !state.owned { continue; }
                    let expected = state.committable(&acked, partition);
                    let id = PartitionId(partition);
                    if matches!(step, Step::Revoke(_)) {
                        let commits = worker.revoke(&[partition]);
                        prop_assert_eq!(commits, expected.map(|offset| (id, offset)).into_iter().collect::<Vec<_>>());
                    } else {
                        worker.engine.lost(&[id]);
                    }
                    worker.unacked.retain(|token| {
                        worker.written.iter().rev().find(|out| out.token == *token).unwrap().source.partition != id
                    });
                    *state = Naive { next: state.next, ..Naive::default() };
                }
                Step::Assign(partition) => {
                    let state = &mut naive[partition as usize];
                    if !state.owned {
                        state.owned = true;
                        worker.assign(&[partition]);
                    }
                }
            }
            prop_assert!(worker.engine.held_count() <= 12, "I7");
            prop_assert!(worker.engine.in_flight_count() <= 6, "I7");
            for (partition, state) in naive.iter().enumerate().filter(|(_, state)| state.owned) {
                let partition = partition as i32;
                let expected = state.committable(&acked, partition);
                prop_assert_eq!(worker.engine.committable(PartitionId(partition)), expected);
            }
            for out in &worker.written[seen..] {
                let Some(at) = out.header(headers::AT) else { continue };
                let at = EventTime::clamped(at.parse().unwrap());
                let ids: Vec<_> = worker.zones.at(ringfence::geometry::Position { lon: 0.5, lat: 0.5 }, at)
                    .iter().map(|zone| zone.id_json.to_string()).collect();
                let suffix = format!(r#""zones":[{}]}}"#, ids.join(","));
                prop_assert!(out.text().ends_with(&suffix), "I10: {} at {:?}: {}", suffix, at, out.text());
                prop_assert_eq!(ids.len(), 1, "the jigsaw");
            }
            seen = worker.written.len();
        }
        prop_assert_eq!(worker.counters().stale_acks, 0);
    }
}

fn finished(
    acked: &mut Vec<(i32, i64)>,
    worker: &Worker<PlainZones>,
    token: ringfence::pipeline::Token,
) {
    let out = worker
        .written
        .iter()
        .rev()
        .find(|out| out.token == token)
        .unwrap();
    acked.push((out.source.partition.0, out.source.offset.0));
}
