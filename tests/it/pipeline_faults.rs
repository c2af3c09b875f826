//! The rows of FAULTS.md that concern the pipeline, at its own level (U): one worker over a plain list of zones.
//! FI1 to FI4 are checked by [`Worker`] after every input.

use std::time::Duration;

use ringfence::codec::headers::Flag;
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::{
    AckResult, AtRules, Limits, OnInvalid, OnLate, PauseCause, PipelineConfig, Refusal, Sending,
    StopReason, Token,
};
use ringfence::rejection::RejectionReason;
use ringfence::telemetry::{HeaderRef, RecordRef, RecordTimestamp};

use crate::support::worker::{Worker, config, event};
use crate::support::zones::{PlainZones, change, rectangle, t};

const AS_OF: i64 = 1_000_000;
const WALL: i64 = AS_OF + 300;

/// One zone `a` over (0,0) to (1,1) since ever.
fn zones() -> PlainZones {
    let mut zones = PlainZones::new(AS_OF);
    zones.changes.push(change(
        0,
        0,
        0,
        "a",
        Some(&rectangle("a", 0.0, 0.0, 1.0, 1.0, "")),
    ));
    zones
}

fn worker(owned: &[i32]) -> Worker<PlainZones> {
    Worker::new(config(), zones(), WALL, owned)
}

/// A worker whose output is bounded tightly.
fn tight(in_flight_max: usize, hold_max: usize, owned: &[i32]) -> Worker<PlainZones> {
    let limits = Limits {
        in_flight_max,
        hold_max,
        ..Limits::default()
    };
    Worker::new(PipelineConfig { limits, ..config() }, zones(), WALL, owned)
}

fn settled() -> String {
    event(AS_OF - 1, 0.5, 0.5)
}

fn waiting() -> String {
    event(AS_OF + 1, 0.5, 0.5)
}

/// Fills the worker's output and lets the stall become a long one.
fn stall(worker: &mut Worker<PlainZones>, partition: i32) {
    while worker.flow.take > 0 {
        worker.read(partition, &settled());
        worker.ask_flow();
    }
    worker.wait(Duration::from_millis(1_001));
    worker.ask_flow();
}

#[test]
fn fs_01_pause_state_is_our_own_after_a_partition_comes_back() {
    let mut worker = tight(4, 100, &[0, 1]);
    stall(&mut worker, 0);
    assert!(worker.client_paused.contains(&PartitionId(1)));
    worker.revoke(&[1]);
    worker.ack_all();
    worker.turn();
    assert!(
        !worker.client_paused.contains(&PartitionId(0)),
        "the stall is over"
    );
    assert!(
        worker.client_paused.contains(&PartitionId(1)),
        "the client still has it paused"
    );
    worker.assign(&[1]);
    assert!(
        !worker.client_paused.contains(&PartitionId(1)),
        "resumed on assignment"
    );
    worker.read(1, &settled());
    worker.ack_all();
    assert_eq!(worker.commit(1), Some(1), "records flow");
    assert_eq!(worker.engine.paused_count(PauseCause::InFlight), 0);
}

#[test]
fn fs_02_a_partition_assigned_during_a_stall_is_paused_before_its_first_record() {
    let mut worker = tight(4, 100, &[0]);
    stall(&mut worker, 0);
    worker.assign(&[1]);
    assert!(worker.client_paused.contains(&PartitionId(1)));
    assert_eq!(worker.engine.paused_count(PauseCause::InFlight), 2);
    // One that slips through all the same is held, as output is full, and goes out once there is room.
    worker.read(1, &settled());
    assert_eq!(worker.engine.held_count(), 1);
    worker.ack_all();
    worker.turn();
    worker.ack_all();
    assert_eq!(worker.commit(1), Some(1));
}

#[test]
fn fs_03_nothing_is_paused_or_resumed_that_is_not_owned() {
    let mut worker = tight(4, 100, &[0, 1]);
    stall(&mut worker, 0);
    worker.revoke(&[0]);
    worker.ack_all();
    worker.turn();
    assert_eq!(worker.flow.resume, [PartitionId(1)]);
    worker.revoke(&[1]);
    worker.turn();
    assert!(worker.flow.pause.is_empty() && worker.flow.resume.is_empty());
    assert_eq!(worker.flow.take, 0, "nothing to take without partitions");
}

#[test]
fn fs_07_an_ack_after_the_revoke_is_stale_and_commits_nothing() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    let late = worker.unacked[0];
    assert_eq!(worker.revoke(&[0]), []);
    worker.ack(late, AckResult::Delivered);
    assert_eq!(worker.counters().stale_acks, 1);
    assert_eq!(worker.commit(0), None);
    assert_eq!(worker.counters().released, 1);
}

#[test]
fn fs_08_an_old_ack_or_a_late_revoke_cannot_touch_the_new_ownership() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    let old = worker.unacked[0];
    let partitions = [PartitionId(0)];
    worker.engine.revoking(&partitions);
    // Assigned again before the end of the revoke was handled.
    worker.assign(&[0]);
    worker.seek(0, 0);
    worker.read(0, &settled());
    let mut commits = Vec::new();
    worker.engine.revoked(&partitions, &mut commits);
    assert_eq!(commits, []);
    assert_eq!(
        worker.engine.owned(),
        partitions,
        "the late revoke left it alone"
    );
    worker.ack(old, AckResult::Failed);
    assert_eq!(
        worker.engine.stopped(),
        None,
        "a failure of the old ownership is nobody's"
    );
    assert_eq!(worker.commit(0), None);
    worker.ack_all();
    assert_eq!(worker.commit(0), Some(1));
}

#[test]
fn fs_09_a_revoke_that_drains_commits_all_that_was_sent() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    worker.read(0, &settled());
    worker.read(0, &waiting());
    let partitions = [PartitionId(0)];
    worker.engine.revoking(&partitions);
    assert_eq!(
        worker.engine.in_flight(partitions[0]),
        2,
        "the held one is released, not drained"
    );
    worker.read(0, &settled());
    assert_eq!(worker.counters().unowned, 1, "nothing is taken in any more");
    worker.ack_all();
    assert_eq!(worker.engine.in_flight(partitions[0]), 0);
    let mut commits = Vec::new();
    worker.engine.revoked(&partitions, &mut commits);
    assert_eq!(commits, [(partitions[0], Offset(2))]);
    assert_eq!(worker.counters().released, 1);
}

#[test]
fn fs_10_a_revoke_that_cannot_drain_commits_the_finished_prefix_and_flows_again_after() {
    let mut worker = worker(&[0]);
    for _ in 0..3 {
        worker.read(0, &settled());
    }
    let (first, third) = (worker.unacked[0], worker.unacked[2]);
    worker.ack(first, AckResult::Delivered);
    worker.ack(third, AckResult::Delivered);
    let commits = worker.revoke(&[0]);
    assert_eq!(commits, [(PartitionId(0), Offset(1))]);
    assert_eq!(
        worker.counters().released,
        1,
        "the second; the third is finished, and read again"
    );
    worker.assign(&[0]);
    worker.seek(0, 1);
    worker.read(0, &settled());
    worker.ack_all();
    assert_eq!(
        worker.commit(0),
        Some(2),
        "no stall after the partition is back"
    );
}

#[test]
fn fs_11_a_lost_partition_is_dropped_at_once_and_commits_nothing() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    worker.ack_all();
    worker.read(0, &settled());
    worker.read(0, &waiting());
    worker.engine.lost(&[PartitionId(0)]);
    assert_eq!(
        worker.commit(0),
        None,
        "not even what is finished: another member owns it"
    );
    assert_eq!(worker.engine.owned(), []);
    assert_eq!(
        (worker.engine.in_flight_count(), worker.engine.held_count()),
        (0, 0)
    );
    assert_eq!(worker.counters().released, 2);
}

#[test]
fn fs_12_a_revoke_of_one_partition_leaves_the_others_alone() {
    let mut worker = worker(&[0, 1]);
    worker.read(0, &settled());
    worker.read(1, &settled());
    worker.read(1, &waiting());
    worker.revoke(&[0]);
    assert_eq!(worker.engine.in_flight(PartitionId(1)), 1);
    worker.ack_all();
    assert_eq!(worker.commit(1), Some(1));
    assert_eq!(worker.engine.held_count(), 1);
    assert_eq!(
        worker.counters().stale_acks,
        1,
        "that of the revoked partition"
    );
}

#[test]
fn fs_16_a_record_of_a_partition_that_is_not_owned_is_counted_and_ignored() {
    let mut worker = worker(&[0]);
    worker.read(7, &settled());
    worker.read(-1, &settled());
    assert_eq!(worker.counters().unowned, 2);
    assert_eq!((worker.counters().consumed, worker.written.len()), (0, 0));
    assert_eq!(worker.engine.committable(PartitionId(7)), None);
}

#[test]
fn fs_04_a_record_that_is_delivered_twice_by_the_client_is_taken_in_once() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    worker.seek(0, 0);
    worker.read(0, &settled());
    assert_eq!(
        (worker.counters().consumed, worker.counters().repeated),
        (1, 1)
    );
}

#[test]
fn fs_19_time_spent_paused_makes_nothing_unsettled() {
    let mut worker = tight(4, 100, &[0, 1]);
    stall(&mut worker, 0);
    worker.wait(Duration::from_secs(60));
    worker.turn();
    worker.ack_all();
    worker.turn();
    // A wait counts from being read, not from anything before: the first event after the pause waits as ever.
    worker.zones.view.as_of = worker.now.wall.minus(Duration::from_millis(300));
    let time = worker.now.wall.millis();
    worker.read(1, &event(time, 0.5, 0.5));
    assert_eq!(worker.engine.held_count(), 1);
    worker.zones.view.as_of = worker.now.wall;
    worker.turn();
    let last = worker.written.last().unwrap();
    assert_eq!(
        (last.flags().is_empty(), last.source.partition),
        (true, PartitionId(1))
    );
}

#[test]
fn fs_20_a_full_hold_queue_ends_with_the_wait_whether_the_gate_moves_or_not() {
    for gate_moves in [true, false] {
        let mut worker = tight(100, 8, &[0, 1]);
        for partition in [0, 1].into_iter().cycle().take(8) {
            worker.read(partition, &waiting());
            worker.ask_flow();
        }
        assert_eq!(worker.flow.take, 0);
        worker.wait(Duration::from_secs(2));
        worker.ask_flow();
        assert_eq!(worker.engine.paused_count(PauseCause::Hold), 2);
        if gate_moves {
            worker.zones.view.as_of = t(AS_OF + 1);
        } else {
            worker.wait(Duration::from_secs(3));
        }
        worker.turn();
        worker.ack_all();
        worker.turn();
        assert_eq!(worker.engine.held_count(), 0);
        assert!(worker.client_paused.is_empty(), "progress");
        assert!(worker.flow.take > 0);
        let unsettled = worker
            .written
            .iter()
            .filter(|out| out.flags().has(Flag::Unsettled))
            .count();
        assert_eq!(unsettled, if gate_moves { 0 } else { 8 });
    }
}

#[test]
fn fs_23_a_record_stamped_a_day_ahead_neither_waits_nor_harms_the_next() {
    let mut worker = worker(&[0]);
    worker.read(0, &event(WALL + 86_400_000, 0.5, 0.5));
    worker.read(0, &settled());
    assert_eq!(worker.engine.held_count(), 0);
    let [ahead, honest] = &worker.written[..] else {
        panic!("both are written at once")
    };
    assert!(ahead.flags().has(Flag::Unsettled));
    assert_eq!(ahead.header("ringfence-at"), Some("1000000"));
    assert!(honest.flags().is_empty());
    // Stored by the broker now: its time is cut to that, and it says so.
    let value = event(WALL + 86_400_000, 0.5, 0.5);
    let stored = RecordTimestamp::LogAppend(t(AS_OF - 5));
    worker.read_as(0, None, Some(value.as_bytes()), stored);
    let cut = worker.written.last().unwrap();
    assert_eq!(
        (cut.flags().to_string().as_str(), cut.header("ringfence-at")),
        ("future", Some("999995"))
    );
}

#[test]
fn fs_24_a_device_of_the_year_2003_is_late_by_policy_and_never_silently_matched() {
    let value = event(1_050_000_000, 0.5, 0.5);
    for on_late in [OnLate::Floor, OnLate::DeadLetter] {
        let at = AtRules {
            on_late,
            ..AtRules::default()
        };
        let mut zones = PlainZones::new(1_700_000_000_000);
        zones.view.floor = t(1_600_000_000_000);
        zones.changes.push(change(
            0,
            0,
            5,
            "old",
            Some(&rectangle("old", 0.0, 0.0, 1.0, 1.0, "")),
        ));
        zones
            .changes
            .push(change(0, 1, 1_500_000_000_000, "old", None));
        let mut worker = Worker::new(
            PipelineConfig { at, ..config() },
            zones,
            1_700_000_000_300,
            &[0],
        );
        worker.read(0, &value);
        let out = &worker.written[0];
        match on_late {
            OnLate::Floor => {
                assert_eq!(out.flags().to_string(), "late");
                assert_eq!(out.header("ringfence-at"), Some("1600000000000"));
                assert!(
                    out.text().ends_with(r#""zones":[]}"#),
                    "not the zone of back then"
                );
            }
            OnLate::DeadLetter => {
                assert_eq!(out.header("ringfence-error-reason"), Some("late"));
                assert_eq!(out.text(), value);
            }
        }
        worker.ack_all();
        assert_eq!(worker.commit(0), Some(1));
    }
}

#[test]
fn fs_25_stored_and_live_points_interleaved_each_get_the_zones_of_their_own_time() {
    let mut zones = zones();
    // Zone a leaves at 500 000.
    zones.changes.push(change(0, 1, 500_000, "a", None));
    let mut worker = Worker::new(config(), zones, WALL, &[0]);
    let times = [AS_OF, 400_000, AS_OF - 1, 499_999, 500_000];
    for time in times {
        worker.read(0, &event(time, 0.5, 0.5));
    }
    let inside: Vec<_> = worker
        .written
        .iter()
        .map(|out| out.text().contains(r#"["a"]"#))
        .collect();
    assert_eq!(inside, times.map(|time| time < 500_000));
}

#[test]
fn fs_29_a_batch_is_matched_with_one_snapshot_and_says_which() {
    let mut worker = worker(&[0]);
    let value = event(AS_OF, 0.5, 0.5);
    let batch: Vec<_> = (0..50)
        .map(|offset| RecordRef {
            partition: PartitionId(0),
            offset: Offset(offset),
            timestamp: RecordTimestamp::Missing,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .collect();
    worker.ingest(&batch);
    // A promotion comes between two batches: the next is of the new snapshot.
    worker
        .zones
        .changes
        .push(change(0, 1, AS_OF + 10, "a", None));
    worker.zones.view.as_of = t(AS_OF + 20);
    worker.read(0, &event(AS_OF + 20, 0.5, 0.5));
    let (first, second) = worker.written.split_at(50);
    let as_of =
        |out: &crate::support::worker::Written| out.header("ringfence-as-of").map(str::to_owned);
    assert!(
        first
            .iter()
            .all(|out| as_of(out).as_deref() == Some("1000000"))
    );
    assert!(
        first
            .iter()
            .all(|out| out.text().contains(r#""zones":["a"]"#))
    );
    assert_eq!(as_of(&second[0]).as_deref(), Some("1000020"));
    assert!(second[0].text().contains(r#""zones":[]"#));
}

#[test]
fn fs_45_poison_records_are_dead_lettered_with_their_reason_and_committed_past() {
    let poison: [(&[u8], RejectionReason); 7] = [
        (b"{", RejectionReason::NotJson),
        (b"\xff\xfe", RejectionReason::NotJson),
        (
            br#"{"id":1,"ts":5,"lat":NaN,"lon":0}"#,
            RejectionReason::NotJson,
        ),
        (
            br#"{"id":1,"ts":5,"lat":91,"lon":0}"#,
            RejectionReason::CoordinateRange,
        ),
        (
            br#"{"id":1,"ts":"now","lat":9,"lon":0}"#,
            RejectionReason::TimeRange,
        ),
        (
            br#"{"id":1,"ts":5,"lat":"9","lon":0}"#,
            RejectionReason::WrongType,
        ),
        (br#"[1]"#, RejectionReason::NotAnObject),
    ];
    for on_invalid in [OnInvalid::DeadLetter, OnInvalid::Forward, OnInvalid::Drop] {
        let mut worker = Worker::new(
            PipelineConfig {
                on_invalid,
                ..config()
            },
            zones(),
            WALL,
            &[0],
        );
        for (value, _) in poison {
            worker.read_as(0, Some(b"k"), Some(value), RecordTimestamp::Create(t(77)));
        }
        worker.read(0, &settled());
        worker.ack_all();
        assert_eq!(
            worker.commit(0),
            Some(8),
            "{on_invalid:?}: the partition is not stuck"
        );
        let counters = *worker.counters();
        let of_each = |counts: &ringfence::pipeline::ReasonCounts| {
            poison.iter().all(|(_, reason)| counts.of(*reason) >= 1)
        };
        match on_invalid {
            OnInvalid::DeadLetter => {
                assert!(of_each(&counters.dead_lettered), "{counters:?}");
                for ((value, reason), out) in poison.iter().zip(&worker.written) {
                    assert_eq!(out.header("ringfence-error-reason"), Some(reason.as_str()));
                    assert_eq!(out.header("ringfence-error-topic"), Some("telemetry"));
                    assert_eq!(out.header("ringfence-error-timestamp"), Some("77"));
                    assert_eq!(out.header("traceparent"), Some("00-1"));
                    assert_eq!(
                        (out.key.as_deref(), out.value.as_deref()),
                        (Some(&b"k"[..]), Some(*value))
                    );
                }
            }
            OnInvalid::Forward => {
                assert_eq!(counters.forwarded, 7);
                for ((value, _), out) in poison.iter().zip(&worker.written) {
                    assert!(!out.is_dead_letter());
                    assert_eq!(out.header("ringfence-flags"), Some("invalid"));
                    assert_eq!(out.header("ringfence-at"), None);
                    assert_eq!(out.value.as_deref(), Some(*value), "unchanged");
                }
            }
            OnInvalid::Drop => {
                assert!(of_each(&counters.dropped), "{counters:?}");
                assert_eq!(worker.written.len(), 1);
            }
        }
    }
}

#[test]
fn fs_45_without_a_dead_letter_topic_an_invalid_record_stops_the_worker_before_it() {
    let config = PipelineConfig {
        dead_letter_max_bytes: None,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    worker.read(0, &settled());
    let bad = worker.read(0, "{");
    worker.read(0, &settled());
    let stop = worker.engine.stopped().expect("it stops");
    assert!(
        matches!(&stop.reason, StopReason::NoDeadLetterTopic(why) if why.reason == RejectionReason::NotJson)
    );
    assert_eq!(stop.position.offset, Offset(bad));
    assert!(
        stop.to_string()
            .starts_with("telemetry record 0:1 is invalid (not_json"),
        "{stop}"
    );
    worker.ack_all();
    worker.turn();
    assert_eq!(worker.commit(0), Some(bad), "not past it");
    assert_eq!((worker.counters().consumed, worker.flow.take), (1, 0));
}

#[test]
fn fs_45_what_outgrows_the_output_without_a_dead_letter_topic_stops_the_worker_too() {
    let config = PipelineConfig {
        dead_letter_max_bytes: None,
        enriched_max_bytes: 1_000,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    worker.read(0, &settled());
    worker.read(0, &settled().replace("bus", &"b".repeat(900)));
    let stop = worker.engine.stopped().expect("it stops");
    assert!(
        matches!(&stop.reason, StopReason::NoDeadLetterTopic(why) if why.reason == RejectionReason::TooLarge)
    );
    worker.ack_all();
    assert_eq!(
        (worker.commit(0), worker.engine.in_flight_count()),
        (Some(1), 0)
    );
}

#[test]
fn fs_47_null_and_empty_telemetry_are_two_ways_to_be_invalid() {
    let mut worker = worker(&[0]);
    worker.read_as(0, None, None, RecordTimestamp::Missing);
    worker.read_as(0, None, Some(b""), RecordTimestamp::Missing);
    let reasons: Vec<_> = worker
        .written
        .iter()
        .map(|out| out.header("ringfence-error-reason").unwrap())
        .collect();
    assert_eq!(reasons, ["null_value", "empty_value"]);
    assert_eq!(
        (&worker.written[0].value, &worker.written[0].key),
        (&None, &None)
    );
    assert_eq!(worker.written[1].value.as_deref(), Some(&b""[..]));
}

#[test]
fn a_forwarded_record_keeps_its_place_behind_a_held_one() {
    let config = PipelineConfig {
        on_invalid: OnInvalid::Forward,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    worker.read(0, &waiting());
    worker.read_as(0, None, None, RecordTimestamp::Missing);
    worker.read(0, &settled());
    assert_eq!((worker.written.len(), worker.engine.held_count()), (0, 3));
    worker.zones.view.as_of = t(AS_OF + 1);
    worker.turn();
    let order: Vec<_> = worker
        .written
        .iter()
        .map(|out| out.source.offset.0)
        .collect();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(worker.written[1].value, None);
}

#[test]
fn a_failed_delivery_stops_the_worker_and_is_not_committed_past() {
    let mut worker = worker(&[0]);
    for _ in 0..3 {
        worker.read(0, &settled());
    }
    let tokens: Vec<Token> = worker.unacked.clone();
    worker.ack(tokens[0], AckResult::Delivered);
    worker.ack(tokens[1], AckResult::Failed);
    worker.ack(tokens[2], AckResult::Delivered);
    assert_eq!(worker.commit(0), Some(1));
    let stop = worker.engine.stopped().expect("it stops");
    assert_eq!(
        (&stop.reason, stop.position.offset),
        (&StopReason::DeliveryFailed, Offset(1))
    );
}

#[test]
fn fs_41_what_outgrows_the_output_topic_is_dead_lettered_as_it_came() {
    let config = PipelineConfig {
        enriched_max_bytes: 1_000,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    let value = settled().replace("bus", &"b".repeat(900));
    worker.read(0, &value);
    let out = &worker.written[0];
    assert_eq!(out.header("ringfence-error-reason"), Some("too_large"));
    assert_eq!(out.text(), value, "the original, not the enriched value");
    worker.ack_all();
    assert_eq!(worker.commit(0), Some(1));
}

#[test]
fn fs_41_what_the_broker_refuses_as_too_large_is_dead_lettered_shorter_and_shorter() {
    let config = PipelineConfig {
        one_by_one: true,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    let value = settled().replace("bus", &"b".repeat(5_000));
    worker.read(0, &value);
    worker.read(0, &settled());
    let refused = worker.unacked[0];
    let second = worker.unacked[1];
    worker.ack(second, AckResult::Delivered);
    let mut letters = Vec::new();
    for _ in 0..3 {
        worker.ack(refused, AckResult::Refused(Refusal::TooLarge));
        assert_eq!(worker.commit(0), None);
        assert_eq!(
            worker.engine.in_flight(PartitionId(0)),
            1,
            "a drain waits for the dead letter"
        );
        worker.turn();
        let out = worker.written.last().unwrap();
        assert_eq!(out.header("ringfence-error-reason"), Some("too_large"));
        letters.push((
            out.value.as_ref().map(Vec::len),
            out.header("ringfence-error-truncated").map(str::to_owned),
            out.header("traceparent").map(str::to_owned),
        ));
    }
    let own = |text: &str| Some(text.to_owned());
    assert_eq!(
        letters,
        [
            (Some(value.len()), None, own("00-1")),
            (Some(1_024), own("value,headers"), None),
            (None, own("key,value,headers"), None),
        ]
    );
    worker.ack(refused, AckResult::Delivered);
    assert_eq!(worker.commit(0), Some(2));
    assert_eq!(
        worker
            .counters()
            .dead_lettered
            .of(RejectionReason::TooLarge),
        1
    );
}

#[test]
fn fs_41_i8_a_refused_batch_is_sent_again_one_by_one_and_only_the_record_at_fault_is_dead_lettered()
{
    let mut worker = worker(&[0, 1]);
    for _ in 0..5 {
        worker.read(0, &settled());
    }
    worker.read(1, &settled());
    let tokens: Vec<Token> = worker.unacked.clone();
    worker.ack(tokens[0], AckResult::Delivered);
    assert_eq!(worker.engine.sending(), Sending::Batches);
    for token in &tokens[1..4] {
        worker.ack(*token, AckResult::Refused(Refusal::Invalid));
    }
    worker.ack(tokens[4], AckResult::Abandoned);
    assert_eq!(worker.engine.sending(), Sending::Refused);
    worker.ask_flow();
    assert_eq!(worker.flow.take, 0, "nothing is sent behind the gap");
    assert_eq!(worker.commit(0), Some(1));
    let from = |partition| worker.engine.unfinished_from(PartitionId(partition));
    assert_eq!((from(0), from(1)), (Some(Offset(1)), Some(Offset(0))));
    worker.begin_one_by_one();
    // Read again from the oldest unfinished record; partition 1 has one in flight too.
    worker.seek(0, 1);
    for _ in 1..5 {
        worker.read(0, &settled());
    }
    assert_eq!(worker.engine.sending(), Sending::OneByOne);
    let again = worker.unacked.clone();
    worker.ack(tokens[5], AckResult::Delivered);
    assert_eq!(worker.counters().stale_acks, 1, "of the producer given up");
    worker.ack(again[0], AckResult::Delivered);
    worker.ack(again[1], AckResult::Refused(Refusal::Invalid));
    worker.ack(again[2], AckResult::Delivered);
    worker.ack(again[3], AckResult::Delivered);
    worker.turn();
    let letter = worker.written.last().unwrap();
    assert!(letter.is_dead_letter());
    assert_eq!(letter.source.offset, Offset(2));
    assert_eq!(
        letter.header("ringfence-error-reason"),
        Some("broker_refused")
    );
    assert_eq!(letter.timestamp, None, "it was refused for it, perhaps");
    assert_eq!(worker.engine.sending(), Sending::OneByOne);
    worker.ack_all();
    assert_eq!(
        worker.engine.sending(),
        Sending::OneByOne,
        "partition 1 is not read yet"
    );
    worker.seek(1, 0);
    worker.read(1, &settled());
    // The last that was in flight is about to finish: what comes after it goes one by one too.
    worker.read(1, &settled());
    worker.ack(worker.unacked[0], AckResult::Delivered);
    assert_eq!(worker.engine.sending(), Sending::OneByOne);
    worker.ask_flow();
    assert_eq!(
        worker.flow.take, 0,
        "the producer is changed with nothing in flight"
    );
    worker.ack_all();
    assert_eq!(worker.engine.sending(), Sending::Mended);
    worker.engine.back_to_batches();
    worker.ask_flow();
    assert!(worker.flow.take > 0);
    assert_eq!((worker.commit(0), worker.commit(1)), (Some(5), Some(2)));
    assert_eq!(worker.counters().dead_lettered.total(), 1);
}

#[test]
fn fs_41_a_partition_revoked_while_its_batch_is_mended_is_its_next_owners_to_mend() {
    let mut worker = worker(&[0]);
    worker.read(0, &settled());
    let token = worker.unacked[0];
    worker.ack(token, AckResult::Refused(Refusal::TooLarge));
    worker.begin_one_by_one();
    assert_eq!(worker.engine.sending(), Sending::OneByOne);
    assert_eq!(worker.revoke(&[0]), []);
    assert_eq!(worker.engine.sending(), Sending::Mended);
}

#[test]
fn fs_41_a_refusal_that_cannot_be_dead_lettered_stops_the_worker() {
    let config = PipelineConfig {
        dead_letter_max_bytes: None,
        one_by_one: true,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    worker.read(0, &settled());
    let token = worker.unacked[0];
    worker.ack(token, AckResult::Refused(Refusal::TooLarge));
    let reason = &worker.engine.stopped().unwrap().reason;
    assert!(
        matches!(reason, StopReason::NoDeadLetterTopic(why) if why.reason == RejectionReason::TooLarge)
    );
    assert_eq!(worker.commit(0), None);
}

#[test]
fn fs_42_a_dead_letter_is_cut_to_what_its_topic_takes() {
    let config = PipelineConfig {
        dead_letter_max_bytes: Some(4_000),
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    let value = "x".repeat(10_000);
    worker.read(0, &value);
    let out = &worker.written[0];
    assert_eq!(out.header("ringfence-error-truncated"), Some("value"));
    assert!(
        value.starts_with(out.text()) && out.text().len() > 2_000,
        "{}",
        out.text().len()
    );
    assert_eq!(out.header("traceparent"), Some("00-1"));
}

#[test]
fn a_drain_releases_what_is_held_and_waits_for_what_is_sent() {
    let mut worker = worker(&[0, 1]);
    worker.read(0, &settled());
    worker.read(1, &settled());
    worker.read(1, &waiting());
    worker.engine.drain();
    worker.turn();
    assert_eq!(
        (
            worker.flow.take,
            worker.engine.held_count(),
            worker.engine.in_flight_count()
        ),
        (0, 0, 2)
    );
    worker.ack_all();
    assert_eq!(worker.engine.in_flight_count(), 0);
    assert_eq!((worker.commit(0), worker.commit(1)), (Some(1), Some(1)));
    worker.zones.view.as_of = t(AS_OF + 1);
    worker.turn();
    assert_eq!(worker.written.len(), 2, "what was released is not sent");
}

#[test]
fn a_source_stamp_far_ahead_is_clamped_and_key_and_headers_are_kept() {
    let mut worker = worker(&[0]);
    let far = RecordTimestamp::Create(t(WALL + 7_200_000));
    worker.read_as(0, Some(b"bus-1"), Some(settled().as_bytes()), far);
    let out = &worker.written[0];
    assert_eq!(out.timestamp, Some(t(WALL + 59 * 60 * 1_000)));
    assert_eq!(out.key.as_deref(), Some(&b"bus-1"[..]));
    let names: Vec<_> = out.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "traceparent",
            "ringfence-at",
            "ringfence-as-of",
            "ringfence-source"
        ]
    );
    assert_eq!(out.header("ringfence-source"), Some("0:0"));
}

/// A Ringfence behind another, and a letter that was brought back by other means than `dead-letters replay`.
#[test]
fn headers_of_an_earlier_pass_are_not_taken_for_those_of_this_one() {
    let earlier: &[HeaderRef<'_>] = &[
        ("ringfence-at", Some(b"5")),
        ("ringfence-flags", Some(b"late")),
        ("ringfence-error-reason", Some(b"late")),
        ("ringfence-error-truncated", Some(b"value")),
        ("traceparent", Some(b"00-1")),
    ];
    let mut worker = worker(&[0]);
    let (at_once, held) = (settled(), waiting());
    for (offset, value) in [at_once.as_str(), &held, "no JSON"].iter().enumerate() {
        worker.ingest(&[RecordRef {
            partition: PartitionId(0),
            offset: Offset(offset as i64),
            timestamp: RecordTimestamp::Missing,
            key: None,
            value: Some(value.as_bytes()),
            headers: earlier,
        }]);
    }
    worker.zones.view.as_of = t(AS_OF + 1);
    worker.turn();
    assert_eq!(worker.written.len(), 3);
    for out in &worker.written {
        let named = |name: &str| {
            out.headers
                .iter()
                .filter(|(known, _)| known == name)
                .count()
        };
        assert_eq!(named("traceparent"), 1);
        if out.is_dead_letter() {
            assert_eq!(out.header("ringfence-error-reason"), Some("not_json"));
            assert_eq!(named("ringfence-error-reason"), 1);
            assert_eq!(out.header("ringfence-error-truncated"), None);
            assert_eq!(out.header("ringfence-flags"), Some("late"), "as it came");
        } else {
            assert_eq!(named("ringfence-at"), 1);
            assert_eq!(out.header("ringfence-flags"), None);
            assert_eq!(named("ringfence-error-reason"), 1, "no name of this one's");
        }
    }
}

#[test]
fn headers_can_be_switched_off() {
    let config = PipelineConfig {
        headers: None,
        ..config()
    };
    let mut worker = Worker::new(config, zones(), WALL, &[0]);
    worker.read(0, &settled());
    let names: Vec<_> = worker.written[0]
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["traceparent"]);
}

#[test]
fn i7_a_release_stops_at_the_bounds_in_flight_and_goes_on_after_acks() {
    let bounds = [
        Limits {
            in_flight_max: 3,
            ..Limits::default()
        },
        // Smaller than one record: one at a time is admitted all the same.
        Limits {
            in_flight_max_bytes: 10,
            ..Limits::default()
        },
    ];
    for (limits, at_once) in bounds.into_iter().zip([3, 1]) {
        let mut worker = Worker::new(
            PipelineConfig { limits, ..config() },
            zones(),
            WALL,
            &[0, 1],
        );
        for partition in [0, 1].into_iter().cycle().take(12) {
            worker.read(partition, &waiting());
        }
        worker.zones.view.as_of = t(AS_OF + 1);
        let mut turns = 0;
        while worker.engine.held_count() > 0 {
            worker.turn();
            assert_eq!(worker.engine.in_flight_count(), at_once, "{limits:?}");
            worker.turn();
            assert_eq!(
                worker.engine.in_flight_count(),
                at_once,
                "nothing more without acks"
            );
            worker.ack_all();
            turns += 1;
        }
        assert_eq!(turns, 12 / at_once);
        assert_eq!((worker.commit(0), worker.commit(1)), (Some(6), Some(6)));
    }
}
