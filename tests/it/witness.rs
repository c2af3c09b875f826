//! The witness against planted defects: a small pipeline made of plain vectors writes what a right daemon would write,
//! each test breaks one thing, and the audit must name exactly that. A clean run must be clean.

use std::time::Duration;

use ringfence::partition::{Offset, PartitionId};
use ringfence::simulate::{EventBuffer, Fleet, FleetRules, Jigsaw, ZoneRecord};
use ringfence::telemetry::{HeaderRef, RecordRef, RecordTimestamp};
use ringfence::time::EventTime;
use ringfence::verify::{Audit, Comparison, Finding, Known, Report, Rules};

const START: i64 = 1_700_000_000_000;
const ZONE_PARTITIONS: i32 = 3;
const PARTITIONS: i32 = 2;

/// A record that owns its bytes.
#[derive(Clone, Debug)]
struct Record {
    partition: i32,
    offset: i64,
    timestamp: RecordTimestamp,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    fn lend(&self, take: impl FnOnce(&RecordRef<'_>)) {
        let headers: Vec<HeaderRef<'_>> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_slice())))
            .collect();
        take(&RecordRef {
            partition: PartitionId(self.partition),
            offset: Offset(self.offset),
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        });
    }

    fn set(&mut self, name: &str, value: String) {
        let header = self
            .headers
            .iter_mut()
            .find(|(header, _)| header == name)
            .unwrap();
        header.1 = value.into_bytes();
    }

    fn source(&self) -> String {
        self.text("ringfence-source")
    }

    /// The value of a header.
    fn text(&self, header: &str) -> String {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(name, _)| name == header).unwrap();
        String::from_utf8(value.clone()).unwrap()
    }
}

/// The four topics.
#[derive(Clone, Debug, Default)]
struct Topics {
    zones: Vec<Record>,
    telemetry: Vec<Record>,
    enriched: Vec<Record>,
    dead_letters: Vec<Record>,
    committed: [i64; PARTITIONS as usize],
}

/// Jigsaw zones by the generator's own knowledge, not by any polygon test: which staircases a place lies between.
/// Here the zones of an instant are found by replaying the values into the vocabulary's plain `covers`.
struct World {
    states: Vec<(i64, Vec<(String, ringfence::geometry::Area)>)>,
}

impl World {
    fn zones(&self, lon: f64, lat: f64, at: i64) -> Vec<String> {
        let (_, zones) = self
            .states
            .iter()
            .rev()
            .find(|(from, _)| *from <= at)
            .unwrap();
        let place = ringfence::geometry::Position { lon, lat };
        let mut ids: Vec<String> = zones
            .iter()
            .filter(|(_, area)| area.covers(place))
            .map(|(id, _)| id.clone())
            .collect();
        ids.sort();
        ids
    }
}

fn area(record: &ZoneRecord) -> ringfence::geometry::Area {
    use ringfence::codec::zone_change::{ZoneRules, decode};
    let rules = ZoneRules::new(ringfence::geometry::ShapeRules::default(), 1 << 20, &[]);
    let change = decode(Some(record.key.as_bytes()), Some(&record.value), &rules).unwrap();
    match change.change {
        ringfence::zone::ZoneChange::Upsert(zone) => zone.area.clone(),
        ringfence::zone::ZoneChange::Remove => panic!("the tiling removes nothing"),
    }
}

/// A right run: 12 zones that move every 100 ms, 600 events of which some are invalid.
fn right_run(seed: u64) -> (Topics, World) {
    let mut topics = Topics::default();
    let mut jigsaw = Jigsaw::new(12, seed);
    let mut next = [0_i64; ZONE_PARTITIONS as usize];
    let mut world = World { states: Vec::new() };
    let mut now: std::collections::BTreeMap<String, ringfence::geometry::Area> = Default::default();
    for step in 0..30 {
        let (commit, effective_at) = (START + step * 100, START + step * 100 + 500);
        let at = EventTime::clamped(effective_at);
        let records = if step == 0 {
            jigsaw.publish(at)
        } else {
            jigsaw.change(at)
        };
        for record in records {
            let partition = record.key.bytes().map(i32::from).sum::<i32>() % ZONE_PARTITIONS;
            now.insert(record.key.clone(), area(&record));
            let offset = &mut next[partition as usize];
            topics.zones.push(Record {
                partition,
                offset: *offset,
                timestamp: RecordTimestamp::LogAppend(EventTime::clamped(commit)),
                key: Some(record.key.into_bytes()),
                value: Some(record.value),
                headers: Vec::new(),
            });
            *offset += 1;
        }
        world
            .states
            .push((effective_at, now.clone().into_iter().collect()));
    }
    let rules = FleetRules {
        entities: 40,
        invalid: 0.05,
        ..FleetRules::default()
    };
    let mut fleet = Fleet::new(rules, jigsaw.size(), seed);
    let mut event = EventBuffer::default();
    let mut output_offsets = [0_i64; PARTITIONS as usize];
    for i in 0..600_i64 {
        let now = EventTime::clamped(START + 600 + i * 4);
        fleet.next(now, EventTime::clamped(START + 500), &mut event);
        let partition = (i % i64::from(PARTITIONS)) as i32;
        let source = Record {
            partition,
            offset: i / i64::from(PARTITIONS) + 40,
            timestamp: RecordTimestamp::Create(now),
            key: Some(event.key.clone()),
            value: (!event.is_null).then(|| event.value.clone()),
            headers: vec![("traceparent".into(), b"00-1".to_vec())],
        };
        topics.committed[partition as usize] = source.offset + 1;
        if event.is_invalid {
            topics
                .dead_letters
                .push(dead_letter(&source, topics.dead_letters.len() as i64));
        } else {
            let at = event.time.unwrap().millis();
            let offset = &mut output_offsets[partition as usize];
            topics.enriched.push(enriched(&source, *offset, at, &world));
            *offset += 1;
        }
        topics.telemetry.push(source);
    }
    (topics, world)
}

fn dead_letter(source: &Record, offset: i64) -> Record {
    let mut letter = Record {
        partition: 0,
        offset,
        ..source.clone()
    };
    for (name, value) in [
        ("reason", "not_json".to_owned()),
        ("topic", "telemetry".to_owned()),
        ("partition", source.partition.to_string()),
        ("offset", source.offset.to_string()),
    ] {
        letter
            .headers
            .push((format!("ringfence-error-{name}"), value.into_bytes()));
    }
    letter
}

fn enriched(source: &Record, offset: i64, at: i64, world: &World) -> Record {
    let mut output = Record {
        offset,
        ..source.clone()
    };
    output.value = Some(spliced(source, at, world));
    for (name, value) in [
        ("ringfence-at", at.to_string()),
        ("ringfence-as-of", (at + 250).to_string()),
        (
            "ringfence-source",
            format!("{}:{}", source.partition, source.offset),
        ),
    ] {
        output.headers.push((name.to_owned(), value.into_bytes()));
    }
    output
}

fn spliced(source: &Record, at: i64, world: &World) -> Vec<u8> {
    let original = source.value.clone().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&original).unwrap();
    let zones = world.zones(
        json["lon"].as_f64().unwrap(),
        json["lat"].as_f64().unwrap(),
        at,
    );
    let mut value = original[..original.len() - 1].to_vec();
    value.extend_from_slice(b",\"zones\":");
    value.extend_from_slice(&serde_json::to_vec(&zones).unwrap());
    value.push(b'}');
    value
}

fn rules() -> Rules {
    Rules {
        exactly_once: true,
        ..Rules::default()
    }
}

/// A thing that the audit is told.
#[derive(Clone, Copy, Debug)]
enum Tell {
    /// The zone changes of one partition, or of all.
    Zones(Option<i32>),
    /// The zones are read far enough for this instant.
    ZonesSettled(EventTime),
    Telemetry,
    Enriched,
    DeadLetters,
    /// The commits, before all their outputs are read.
    Committed,
    /// The commits, all their outputs being read.
    Settled,
}

/// All at once, zones first.
const ZONES_FIRST: [Tell; 6] = [
    Tell::Zones(None),
    Tell::ZonesSettled(EventTime::MAX),
    Tell::Telemetry,
    Tell::DeadLetters,
    Tell::Enriched,
    Tell::Settled,
];

/// Tells the audit of the topics in this order.
fn tell(audit: &mut Audit, topics: &Topics, order: &[Tell]) {
    for what in order {
        match what {
            Tell::Zones(partition) => {
                let of_partition = topics.zones.iter().filter(|record| {
                    partition.is_none_or(|partition| record.partition == partition)
                });
                of_partition.for_each(|record| record.lend(|record| audit.zone(record)));
            }
            Tell::ZonesSettled(horizon) => audit.zones_settled(*horizon),
            Tell::Telemetry => lend_all(&topics.telemetry, |record| audit.telemetry(record)),
            Tell::Enriched => lend_all(&topics.enriched, |record| audit.enriched(record)),
            Tell::DeadLetters => lend_all(&topics.dead_letters, |record| audit.dead_letter(record)),
            Tell::Committed | Tell::Settled => {
                for (partition, committed) in (0..).zip(topics.committed) {
                    let (partition, committed) = (PartitionId(partition), Offset(committed));
                    if matches!(what, Tell::Committed) {
                        audit.committed(partition, committed);
                    } else {
                        audit.settled(partition, committed);
                    }
                }
            }
        }
    }
}

fn lend_all(records: &[Record], mut take: impl FnMut(&RecordRef<'_>)) {
    records.iter().for_each(|record| record.lend(&mut take));
}

fn judge_in(order: &[Tell], topics: &Topics, rules: Rules) -> Report {
    let mut audit = Audit::new(rules);
    tell(&mut audit, topics, order);
    audit.finish()
}

fn judge(topics: &Topics, rules: Rules) -> Report {
    judge_in(&ZONES_FIRST, topics, rules)
}

/// The n-th enriched record that is not the first of its partition.
fn nth(topics: &Topics, n: usize) -> usize {
    topics
        .enriched
        .iter()
        .enumerate()
        .skip(20 + n)
        .map(|(i, _)| i)
        .next()
        .unwrap()
}

fn only(report: &Report, finding: Finding, count: u64) {
    assert_eq!(report.count(finding), count, "{report}");
    let others = report
        .findings
        .keys()
        .filter(|other| **other != finding)
        .count();
    assert_eq!(others, 0, "{report}");
    assert_eq!(report.is_clean(), count == 0, "{report}");
}

#[test]
fn a_right_run_is_clean_whatever_the_order_of_arrival() {
    for seed in 0..5 {
        let (topics, _) = right_run(seed);
        let report = judge(&topics, rules());
        only(&report, Finding::Wrong, 0);
        assert!(report.saw_something() && report.enriched > 500 && report.dead_letters > 10);
        assert!(report.jigsaw_checked > 500, "seed {seed}: {report}");

        // Outputs before their telemetry, telemetry before its zones, all of it interleaved.
        let mut audit = Audit::new(rules());
        let zones = (0..ZONE_PARTITIONS).rev().map(|id| Tell::Zones(Some(id)));
        tell(&mut audit, &topics, &[Tell::Enriched, Tell::Telemetry]);
        tell(&mut audit, &topics, &zones.collect::<Vec<_>>());
        let horizon = EventTime::clamped(START + 1_500);
        let known_in_part = [Tell::ZonesSettled(horizon), Tell::DeadLetters];
        tell(&mut audit, &topics, &known_in_part);
        let known = [Tell::ZonesSettled(EventTime::MAX), Tell::Settled];
        tell(&mut audit, &topics, &known);
        assert_eq!(audit.backlog().waiting, 0);
        let report = audit.finish();
        only(&report, Finding::Wrong, 0);
        assert!(report.jigsaw_checked > 500, "seed {seed}: {report}");
    }
}

/// What `verify` does: the commits are known before anything is read, and whichever output topic has more at hand is read
/// first.
const AS_VERIFY_READS: [Tell; 7] = [
    Tell::Zones(None),
    Tell::ZonesSettled(EventTime::MAX),
    Tell::Committed,
    Tell::DeadLetters,
    Tell::Telemetry,
    Tell::Enriched,
    Tell::Settled,
];

#[test]
fn a_record_before_the_first_output_that_was_read_is_judged_too() {
    let (mut topics, _) = right_run(1);
    let all = topics.telemetry.len() as u64;
    let report = judge_in(&AS_VERIFY_READS, &topics, rules());
    only(&report, Finding::Lost, 0);
    assert_eq!(report.judged, all, "{report}");
    // Lost between the first output of partition 0, which is an enriched record, and its first dead letter.
    let of_zero = |record: &&Record| record.source().starts_with("0:");
    let enriched: Vec<_> = topics.enriched.iter().filter(of_zero).take(2).collect();
    assert_eq!(enriched[0].source(), "0:40");
    let lost = enriched[1].source();
    let letter = topics
        .dead_letters
        .iter()
        .find(|letter| letter.text("ringfence-error-partition") == "0");
    let letter = letter.unwrap().text("ringfence-error-offset");
    assert!(
        lost == "0:41" && letter.parse::<i64>().unwrap() > 41,
        "{lost} {letter}"
    );
    topics.enriched.retain(|record| record.source() != lost);
    only(
        &judge_in(&AS_VERIFY_READS, &topics, rules()),
        Finding::Lost,
        1,
    );
}

#[test]
fn a_lost_record_is_found() {
    let (mut topics, _) = right_run(1);
    let lost = topics.enriched.remove(nth(&topics, 7)).source();
    let report = judge(&topics, rules());
    only(&report, Finding::Lost, 1);
    let (partition, offset) = report.first(Finding::Lost)[0];
    assert_eq!(format!("{partition}:{offset}"), lost);
}

#[test]
fn a_lost_dead_letter_is_found() {
    let (mut topics, _) = right_run(1);
    topics.dead_letters.remove(9);
    only(&judge(&topics, rules()), Finding::Lost, 1);
}

#[test]
fn a_doubled_record_fails_exactly_once_and_is_counted_at_least_once() {
    let (mut topics, _) = right_run(2);
    let doubled = topics.enriched[nth(&topics, 3)].clone();
    topics.enriched.push(doubled);
    only(&judge(&topics, rules()), Finding::Duplicate, 1);
    let report = judge(
        &topics,
        Rules {
            exactly_once: false,
            ..rules()
        },
    );
    assert!(
        report.is_clean() && report.count(Finding::Duplicate) == 1,
        "{report}"
    );
}

#[test]
fn two_swapped_records_are_found() {
    let (mut topics, _) = right_run(3);
    let first = nth(&topics, 11);
    let partition = topics.enriched[first].partition;
    let second = (first + 1..)
        .find(|&i| topics.enriched[i].partition == partition)
        .unwrap();
    topics.enriched.swap(first, second);
    only(&judge(&topics, rules()), Finding::Reordered, 1);
}

#[test]
fn duplicates_after_a_restart_are_no_reordering() {
    let (mut topics, _) = right_run(3);
    let again: Vec<Record> = topics.enriched[100..140].to_vec();
    topics.enriched.splice(140..140, again);
    only(&judge(&topics, rules()), Finding::Duplicate, 40);
}

#[test]
fn one_wrong_zone_is_found() {
    let (mut topics, _) = right_run(4);
    let at = nth(&topics, 5);
    let value = String::from_utf8(topics.enriched[at].value.clone().unwrap()).unwrap();
    let (head, _) = value.split_once("\"zones\":").unwrap();
    topics.enriched[at].value = Some(format!("{head}\"zones\":[\"jigsaw-9-9\"]}}").into_bytes());
    only(&judge(&topics, rules()), Finding::Wrong, 1);
}

#[test]
fn a_changed_byte_outside_the_zones_is_found() {
    let (mut topics, _) = right_run(4);
    let at = nth(&topics, 6);
    topics.enriched[at].value.as_mut().unwrap()[8] ^= 1;
    only(&judge(&topics, rules()), Finding::Wrong, 1);
}

#[test]
fn a_change_promoted_too_early_is_found_and_named() {
    // The zones of 500 ms later: exactly what a gate gives that takes a change at its commit, not at its instant.
    let (mut topics, world) = right_run(5);
    let mut changed = 0;
    for output in &mut topics.enriched {
        let source = output.source();
        let telemetry = &topics.telemetry;
        let record = telemetry
            .iter()
            .find(|record| format!("{}:{}", record.partition, record.offset) == source)
            .unwrap();
        let (_, at) = output
            .headers
            .iter()
            .find(|(name, _)| name == "ringfence-at")
            .unwrap();
        let at: i64 = String::from_utf8(at.clone()).unwrap().parse().unwrap();
        let early = spliced(record, at + 500, &world);
        changed += u64::from(output.value.as_ref() != Some(&early));
        output.value = Some(early);
    }
    assert!(changed > 0, "some event lies where a border moved");
    let report = judge(&topics, rules());
    only(&report, Finding::Wrong, changed);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("acted before")),
        "{report}"
    );
}

#[test]
fn a_half_applied_move_breaks_the_jigsaw_and_is_a_gate_violation() {
    // One of a pair of changes not read in time: its zone keeps its old shape in the answers.
    let (topics, _) = right_run(6);
    let mut caught = 0;
    for skip in 12..topics.zones.len() {
        let mut world = World { states: Vec::new() };
        let mut now = std::collections::BTreeMap::new();
        for (i, record) in topics.zones.iter().enumerate() {
            if i == skip {
                continue;
            }
            let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
            let zone = ZoneRecord {
                key: key.clone(),
                value: record.value.clone().unwrap(),
            };
            let commit = record.timestamp.instant().unwrap().millis();
            now.insert(key, area(&zone));
            let state: Vec<_> = now.clone().into_iter().collect();
            match world.states.last_mut() {
                Some((from, last)) if *from == commit + 500 => *last = state,
                _ => world.states.push((commit + 500, state)),
            }
        }
        let mut broken = topics.clone();
        for output in &mut broken.enriched {
            let source = output.source();
            let mut records = topics.telemetry.iter();
            let record = records
                .find(|record| format!("{}:{}", record.partition, record.offset) == source)
                .unwrap();
            let (_, at) = output
                .headers
                .iter()
                .find(|(name, _)| name == "ringfence-at")
                .unwrap();
            let at: i64 = String::from_utf8(at.clone()).unwrap().parse().unwrap();
            output.value = Some(spliced(record, at, &world));
        }
        let report = judge(&broken, rules());
        if !report.is_clean() {
            caught += 1;
            assert_eq!(
                report.gate_violations,
                report.count(Finding::Wrong),
                "{report}"
            );
        }
    }
    assert!(caught > 5, "{caught}");
}

#[test]
fn a_commit_past_the_acknowledged_prefix_is_found() {
    // The last ten outputs of partition 0 were in flight when the process died, but their offsets were committed.
    let (mut topics, _) = right_run(7);
    let tail: Vec<String> = topics
        .enriched
        .iter()
        .rev()
        .filter(|record| record.partition == 0)
        .take(10)
        .map(Record::source)
        .collect();
    topics
        .enriched
        .retain(|record| !tail.contains(&record.source()));
    only(&judge(&topics, rules()), Finding::Lost, 10);
}

#[test]
fn a_commit_before_its_output_is_found_though_the_output_came() {
    let (mut topics, _) = right_run(7);
    let late = topics.enriched.split_off(topics.enriched.len() - 4);
    let mut audit = Audit::new(rules());
    tell(&mut audit, &topics, &ZONES_FIRST);
    assert_eq!(audit.report().count(Finding::Lost), 4);
    lend_all(&late, |record| audit.enriched(record));
    only(&audit.finish(), Finding::CommittedEarly, 4);
}

#[test]
fn what_is_not_committed_is_not_lost() {
    let (mut topics, _) = right_run(8);
    let from = topics.committed[0] - 20;
    topics.committed[0] = from;
    topics.enriched.retain(|record| {
        let source = record.source();
        let (partition, offset) = source.split_once(':').unwrap();
        partition != "0" || offset.parse::<i64>().unwrap() < from
    });
    topics.dead_letters.clear();
    let report = judge(&topics, rules());
    assert_eq!(
        report.count(Finding::Wrong) + report.count(Finding::Orphan),
        0,
        "{report}"
    );
    let (_, to) = report.ranges[&0];
    assert_eq!(to, from);
}

#[test]
fn orphans_are_found() {
    let (mut topics, _) = right_run(9);
    let mut orphan = topics.enriched[50].clone();
    orphan.set("ringfence-source", "1:99999".to_owned());
    topics.enriched.push(orphan);
    let mut nameless = topics.enriched[51].clone();
    nameless.headers.clear();
    topics.enriched.push(nameless);
    only(&judge(&topics, rules()), Finding::Orphan, 2);
}

#[test]
fn a_valid_event_in_the_dead_letters_and_an_unjustified_flag_are_wrong() {
    let (mut topics, _) = right_run(10);
    let at = nth(&topics, 1);
    let source = topics.enriched.remove(at).source();
    let mut records = topics.telemetry.iter();
    let record = records
        .find(|record| format!("{}:{}", record.partition, record.offset) == source)
        .unwrap();
    topics.dead_letters.push(dead_letter(record, 10_000));
    topics.enriched[at]
        .headers
        .push(("ringfence-flags".into(), b"unsettled".to_vec()));
    only(&judge(&topics, rules()), Finding::Wrong, 2);
}

#[test]
fn headers_that_a_source_has_of_another_ringfence_belong_in_no_output() {
    let (mut topics, _) = right_run(10);
    let flags = ("ringfence-flags".to_owned(), b"late".to_vec());
    let reason = ("ringfence-error-reason".to_owned(), b"late".to_vec());
    for record in &mut topics.telemetry {
        record.headers.insert(0, flags.clone());
        record.headers.insert(0, reason.clone());
    }
    for letter in &mut topics.dead_letters {
        letter.headers.insert(0, flags.clone());
    }
    for output in &mut topics.enriched {
        output.headers.insert(0, reason.clone());
    }
    only(&judge(&topics, rules()), Finding::Wrong, 0);
    let at = nth(&topics, 1);
    topics.enriched[at].headers.insert(0, flags);
    let again = ("ringfence-at".to_owned(), b"5".to_vec());
    topics.enriched[at + 1].headers.insert(2, again);
    only(&judge(&topics, rules()), Finding::Wrong, 2);
}

#[test]
fn an_instant_that_is_not_the_events_own_is_wrong_without_a_flag() {
    let (mut topics, _) = right_run(11);
    let at = nth(&topics, 2);
    topics.enriched[at].set("ringfence-at", (START + 500).to_string());
    let report = judge(&topics, rules());
    only(&report, Finding::Wrong, 1);
    assert!(report.notes[0].contains("should be"), "{report}");
}

#[test]
fn a_clipped_pair_is_listed_and_excused_from_the_jigsaw_only() {
    // One half of a move is committed 300 ms after the instant it asks for: in between the tiling has a gap, and a
    // right daemon says so.
    let (mut topics, _) = right_run(12);
    let late = topics.zones.len() - 1;
    let commit = topics.zones[late].timestamp.instant().unwrap();
    let committed = commit.plus(Duration::from_millis(800));
    topics.zones[late].timestamp = RecordTimestamp::LogAppend(committed);
    let report = judge(&topics, rules());
    assert_eq!(report.clipped, 1);
    assert_eq!(report.count(Finding::Jigsaw), 0, "{report}");
}

#[test]
fn replays_are_compared_byte_by_byte() {
    let (topics, _) = right_run(13);
    let compare = |right: &[Record]| {
        let mut comparison = Comparison::default();
        lend_all(&topics.enriched, |record| comparison.left(record));
        lend_all(right, |record| comparison.right(record));
        comparison.finish(&Known::default())
    };
    let same = compare(&topics.enriched);
    assert!(same.is_clean() && same.compared > 500);
    let mut other = topics.enriched.clone();
    other[33].value.as_mut().unwrap()[8] ^= 1;
    other.remove(60);
    let differing = compare(&other);
    assert_eq!(
        (
            differing.different,
            differing.only_left,
            differing.only_right
        ),
        (1, 1, 0)
    );
    let mut flagged = topics.enriched.clone();
    flagged[33].value.as_mut().unwrap()[8] ^= 1;
    flagged[33]
        .headers
        .push(("ringfence-flags".into(), b"unsettled".to_vec()));
    assert!(
        compare(&flagged).is_clean(),
        "a flagged record is not compared"
    );
}

/// A copy that ends earlier, begins later or lacks a partition is no copy, unless there is nothing any more that it could
/// be made of.
#[test]
fn what_a_replay_lacks_beyond_its_own_range_counts_unless_it_is_explained() {
    let (topics, _) = right_run(13);
    let place = |record: &Record| {
        let source = record.source();
        let (partition, offset) = source.split_once(':').unwrap();
        (
            partition.parse::<i32>().unwrap(),
            offset.parse::<i64>().unwrap(),
        )
    };
    let compare = |keep: &dyn Fn((i32, i64)) -> bool, known: &Known| {
        let mut comparison = Comparison::default();
        lend_all(&topics.enriched, |record| comparison.left(record));
        let copied: Vec<Record> = topics
            .enriched
            .iter()
            .filter(|record| keep(place(record)))
            .cloned()
            .collect();
        lend_all(&copied, |record| comparison.right(record));
        comparison.finish(known)
    };
    let nothing = Known::default();
    let gone = Known {
        telemetry_from: [(0, 140), (1, 140)].into(),
        ..Known::default()
    };
    let forgets = Known {
        right_forgets: true,
        ..Known::default()
    };
    type Keep<'a> = &'a dyn Fn((i32, i64)) -> bool;
    let (ends, begins): (Keep<'_>, Keep<'_>) =
        (&|(_, offset)| offset < 140, &|(_, offset)| offset >= 140);
    let lacks: Keep<'_> = &|(partition, _)| partition == 0;
    for (name, keep, explained_by, not_by) in [
        (
            "it ends earlier",
            ends,
            vec![],
            vec![&nothing, &gone, &forgets],
        ),
        (
            "it begins later",
            begins,
            vec![&gone, &forgets],
            vec![&nothing],
        ),
        (
            "it lacks a partition",
            lacks,
            vec![],
            vec![&nothing, &gone, &forgets],
        ),
    ] {
        for known in explained_by {
            let found = compare(keep, known);
            assert!(
                found.is_clean() && found.explained > 50,
                "{name}: {found:?}"
            );
        }
        for known in not_by {
            let found = compare(keep, known);
            assert!(
                !found.is_clean() && found.is_same_in_overlap(),
                "{name}: {found:?}"
            );
            assert!(
                found.unexplained() > 50 && found.beyond_right == 0,
                "{name}: {found:?}"
            );
            assert!(!found.ranges.is_empty(), "{name}");
        }
    }
}

#[test]
fn outputs_whose_telemetry_retention_took_are_set_aside() {
    let (mut topics, _) = right_run(14);
    topics.telemetry.retain(|record| record.offset >= 140);
    let order = [
        Tell::Zones(None),
        Tell::ZonesSettled(EventTime::MAX),
        Tell::Enriched,
        Tell::DeadLetters,
        Tell::Telemetry,
        Tell::Settled,
    ];
    let report = judge_in(&order, &topics, rules());
    only(&report, Finding::Orphan, 0);
    assert_eq!(report.set_aside.values().sum::<u64>(), 200, "{report}");
}

#[test]
fn telemetry_that_the_audit_could_not_read_in_time_is_said() {
    let (mut topics, _) = right_run(14);
    for record in topics
        .telemetry
        .iter_mut()
        .filter(|record| record.offset >= 200)
    {
        record.offset += 5_000;
    }
    let report = judge(&topics, rules());
    assert_eq!(
        report.count(Finding::Unread),
        2,
        "one run in each partition: {report}"
    );
    assert!(!report.is_clean());
}

/// Outputs of two topics come in any order: a dead letter may be met before the telemetry, and before the enriched
/// records that stand ahead of it in the log.
#[test]
fn a_run_is_clean_when_its_last_dead_letters_are_read_first_and_its_telemetry_last() {
    let (mut topics, _) = right_run(5);
    topics.dead_letters.reverse();
    let order = [
        Tell::Zones(None),
        Tell::ZonesSettled(EventTime::MAX),
        Tell::DeadLetters,
        Tell::Enriched,
        Tell::Telemetry,
        Tell::Settled,
    ];
    let report = judge_in(&order, &topics, rules());
    assert!(report.is_clean(), "{report}");
}
