//! The group under each of its protocols, on a real Kafka: classic with dynamic and with static members (KIP-345), and
//! the new one (KIP-848). Processes come, go and are killed; nothing is lost, and partitions that stay do not stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use ringfence::clock::Clock;
use ringfence::kafka::admin::End;
use ringfence::partition::PartitionId;
use ringfence::time::MonoTime;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::bootstrap;
use crate::support::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;

/// How processes are members.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Membership {
    Dynamic,
    Static,
    Consumer,
}

/// A stage with a simulated fleet over it.
fn stage(name: &str, membership: Membership, mode: &str) -> Option<Stage> {
    stage_of(name, membership, mode, PARTITIONS)
}

fn stage_of(name: &str, membership: Membership, mode: &str, partitions: i32) -> Option<Stage> {
    let address = bootstrap()?;
    let session = |ms: u32| {
        format!("\"session.timeout.ms\" = \"{ms}\"\n\"heartbeat.interval.ms\" = \"500\"\n")
    };
    let consumer = match membership {
        Membership::Consumer => "\"group.protocol\" = \"consumer\"\n".to_owned(),
        // What is moved where a static member is not back in time is not what is tested here: a machine may be slow.
        Membership::Static => session(30_000),
        Membership::Dynamic => session(6_000),
    };
    let delivery = format!(
        "[delivery]\nmode = \"{mode}\"\ninstance = \"unnamed\"\nstatic_member = {}\n",
        membership == Membership::Static
    );
    let stage = Stage::with_consumer(address, name, &consumer, &delivery);
    stage.create_topics(partitions, &[]);
    Some(stage)
}

fn start(stage: &Stage, instance: &str, log: &str) -> Daemon {
    let mut daemon = stage.daemon_with(log, &[&format!("delivery.instance={instance}")]);
    daemon.wait_ready();
    daemon
}

/// The partitions that a process owns.
fn owned(daemon: &Daemon) -> Option<Vec<i64>> {
    let status = daemon.status()?;
    let workers = status["workers"].as_array()?;
    let mut owned: Vec<i64> = workers
        .iter()
        .filter_map(|worker| worker["partitions"].as_array())
        .flatten()
        .filter_map(|partition| {
            partition
                .as_i64()
                .or_else(|| partition["partition"].as_i64())
        })
        .collect();
    owned.sort_unstable();
    Some(owned)
}

fn wait_owned(daemon: &Daemon, count: usize) -> Vec<i64> {
    eventually("it owns its share", PATIENCE, || {
        owned(daemon).filter(|owned| owned.len() == count)
    })
}

fn enriched(daemon: &Daemon) -> Option<f64> {
    daemon.metric("ringfence_records_enriched_total", "")
}

/// Waits until it has enriched more than so many records.
fn wait_enriched(daemon: &Daemon, more_than: f64) {
    eventually("it enriches", PATIENCE, || {
        enriched(daemon).filter(|count| *count > more_than)
    });
}

/// How often partitions were given to or taken from a process.
fn moves(daemon: &Daemon) -> usize {
    let log = daemon.log();
    let told = |line: &&str| line.contains(" assigned partitions=") || line.contains("revoked ");
    log.lines().filter(told).count()
}

/// The ends of the enriched partitions, as readers of committed records see them.
fn ends(stage: &Stage) -> Vec<i64> {
    let ids: Vec<_> = (0..PARTITIONS).map(PartitionId).collect();
    let offsets = stage
        .admin
        .offsets(&stage.topic("enriched"), &ids, End::Stable);
    let offsets = offsets.expect("the broker answers");
    offsets.iter().map(|(_, range)| range.to.0).collect()
}

/// Notes when the records of each enriched partition arrive; those of a source partition are all in the one of its number.
struct Arrivals {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<i64, Vec<MonoTime>>>,
}

impl Arrivals {
    fn watch(address: &str, topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", address)
            .set("group.id", format!("{topic}.arrivals"))
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let body = move || {
            let mut all: BTreeMap<i64, Vec<MonoTime>> = BTreeMap::new();
            while !told.load(Ordering::Acquire) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                    let times = all.entry(i64::from(message.partition())).or_default();
                    times.push(Clock::mono());
                }
            }
            all
        };
        Self {
            stop,
            thread: std::thread::spawn(body),
        }
    }

    fn end(self) -> BTreeMap<i64, Vec<MonoTime>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// The longest time without a record of these partitions within a span.
fn longest_gap(
    all: &BTreeMap<i64, Vec<MonoTime>>,
    partitions: &[i64],
    (from, to): (MonoTime, MonoTime),
) -> Duration {
    let gaps = partitions.iter().flat_map(|partition| {
        let times: Vec<MonoTime> = std::iter::once(from)
            .chain(all[partition].iter().copied())
            .chain([to])
            .filter(|at| (from..=to).contains(at))
            .collect();
        let gaps = times.windows(2).map(|two| two[1].since(two[0]));
        gaps.collect::<Vec<_>>()
    });
    gaps.max().unwrap_or_default()
}

/// A second process joins, leaves by SIGTERM, joins again and is killed. Prints how long partitions stood still; those that
/// stay with the first process must not wait for the rebalance: less than the time that the group gives a member to answer.
fn come_and_go(name: &str, membership: Membership, mode: &str) {
    let Some(stage) = stage(name, membership, mode) else {
        return;
    };
    let simulation = ["--rate", "400", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let first = start(&stage, "first", "first");
    wait_owned(&first, 4);
    let arrivals = Arrivals::watch(bootstrap().unwrap(), &stage.topic("enriched"));
    wait_enriched(&first, 200.0);
    let mut spans = Vec::new();
    let mut moved = Vec::new();
    let mut stays = Vec::new();
    let mut span = |what: &'static str, work: &mut dyn FnMut()| {
        let from = Clock::mono();
        work();
        // And until records of all partitions flow again.
        let before = ends(&stage);
        eventually("all partitions flow", PATIENCE, || {
            let ends = ends(&stage);
            let grown = ends.iter().zip(&before).all(|(now, then)| now > then);
            grown.then_some(())
        });
        spans.push((what, from, Clock::mono()));
    };
    let mut second = None;
    span("join", &mut || {
        let started = start(&stage, "second", "second");
        moved = wait_owned(&started, 2);
        stays = wait_owned(&first, 2);
        second = Some(started);
    });
    span("leave", &mut || {
        second.take().unwrap().stop();
        wait_owned(&first, 4);
    });
    span("join again", &mut || {
        let started = start(&stage, "second", "again");
        moved = wait_owned(&started, 2);
        stays = wait_owned(&first, 2);
        second = Some(started);
    });
    let mut killed = second.unwrap();
    span("kill -9", &mut || {
        killed.signal("KILL");
        killed.wait_exit(Duration::from_secs(10));
        wait_owned(&first, 4);
    });
    simulation.stop();
    simulation.wait_written(PATIENCE);
    stage.wait_committed(stage.group(), PATIENCE);
    let arrived = arrivals.end();
    for (what, from, to) in &spans {
        let span = (*from, *to);
        let stay = longest_gap(&arrived, &stays, span);
        let went = longest_gap(&arrived, &moved, span);
        eprintln!(
            "{membership:?} {mode}: {what}: longest stop of those that stay {stay:?}, that move {went:?}"
        );
        assert!(stay < Duration::from_secs(5), "{what}: {stay:?}");
    }
    let mut first = first;
    first.stop();
    let report = stage.verify(&[]);
    let duplicates = report["findings"]["duplicate"].as_u64().unwrap_or(0);
    assert_eq!(report["clean"], true, "{report:#}");
    if mode == "exactly_once" {
        assert_eq!(duplicates, 0, "{report:#}");
    }
}

#[test]
fn fs_09_dynamic_members_come_and_go_and_partitions_that_stay_flow_on() {
    come_and_go("dynamic", Membership::Dynamic, "at_least_once");
}

#[test]
fn kip_848_members_come_and_go_and_partitions_that_stay_flow_on() {
    come_and_go("kip848", Membership::Consumer, "at_least_once");
}

#[test]
fn kip_848_members_double_and_lose_nothing_within_transactions() {
    come_and_go("kip848-once", Membership::Consumer, "exactly_once");
}

/// The epoch of the group rises with each of them, and members whose partitions stay hear of it by no event.
#[test]
fn fs_13_kip_848_members_without_a_partition_come_and_go_and_cost_the_others_hardly_a_transaction()
{
    let Some(stage) = stage_of("kip848-idle", Membership::Consumer, "exactly_once", 2) else {
        return;
    };
    let simulation = ["--rate", "300", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let mut workers = [start(&stage, "a", "a"), start(&stage, "b", "b")];
    for worker in &workers {
        wait_owned(worker, 1);
    }
    let count = |worker: &Daemon, what: &str| {
        let count = worker.metric("ringfence_transactions_total", what);
        count.unwrap_or(0.0)
    };
    const ROUNDS: u32 = 4;
    for round in 0..ROUNDS {
        let mut idle = start(&stage, "idle", &format!("idle-{round}"));
        let before = workers.each_ref().map(|worker| count(worker, "committed"));
        // Long enough for the coordinator to have told everybody, and more aborts in a row than a worker may have.
        for (worker, before) in workers.iter().zip(before) {
            eventually("both commit on", PATIENCE, || {
                (count(worker, "committed") >= before + 30.0).then_some(())
            });
        }
        if round % 2 == 0 {
            idle.stop();
        } else {
            idle.signal("KILL");
            idle.wait_exit(Duration::from_secs(10));
        }
    }
    for worker in &workers {
        let log = worker.log();
        assert!(!log.contains("made anew"), "{log}");
        // One may be under way while the epoch rises: with a join, and with an end.
        let aborted = count(worker, "aborted");
        assert!(aborted <= f64::from(2 * ROUNDS), "{aborted} aborts: {log}");
    }
    simulation.stop();
    simulation.wait_written(PATIENCE);
    stage.wait_committed(stage.group(), PATIENCE);
    for worker in &mut workers {
        worker.stop();
    }
    let report = stage.verify(&["--exactly-once"]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["findings"].get("duplicate"), None, "{report:#}");
}

#[test]
fn fs_09_members_that_join_and_leave_in_good_order_double_nothing() {
    let Some(stage) = stage("leaving", Membership::Dynamic, "at_least_once") else {
        return;
    };
    let simulation = ["--rate", "400", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let mut first = start(&stage, "first", "first");
    wait_owned(&first, 4);
    for round in 0..6 {
        let mut second = start(&stage, "second", &format!("second-{round}"));
        wait_owned(&second, 2);
        wait_enriched(&second, 100.0);
        second.stop();
        wait_owned(&first, 4);
    }
    simulation.stop();
    simulation.wait_written(PATIENCE);
    stage.wait_committed(stage.group(), PATIENCE);
    first.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["findings"].get("duplicate"), None, "{report:#}");
}

fn a_restart_moves_nothing(name: &str, mode: &str) {
    let Some(stage) = stage(name, Membership::Static, mode) else {
        return;
    };
    let simulation = ["--rate", "300", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let mut first = start(&stage, "first", "first");
    let mut second = start(&stage, "second", "second-0");
    let share = wait_owned(&second, 2);
    wait_owned(&first, 2);
    for (round, signal) in [(1, "TERM"), (2, "KILL"), (3, "KILL")] {
        let before = moves(&first);
        second.signal(signal);
        second.wait_exit(Duration::from_secs(20));
        second = start(&stage, "second", &format!("second-{round}"));
        assert_eq!(wait_owned(&second, 2), share);
        wait_enriched(&second, 100.0);
        assert_eq!(moves(&first), before, "{signal}: {}", first.log());
    }
    simulation.stop();
    simulation.wait_written(PATIENCE);
    stage.wait_committed(stage.group(), PATIENCE);
    first.stop();
    second.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
}

#[test]
fn a_static_member_that_is_stopped_or_killed_and_started_again_in_time_moves_no_partition() {
    a_restart_moves_nothing("static", "at_least_once");
}

#[test]
fn a_static_member_that_is_killed_amid_transactions_moves_no_partition_and_doubles_nothing() {
    a_restart_moves_nothing("static-once", "exactly_once");
}

fn the_older_double_ends(name: &str, mode: &str) {
    let Some(stage) = stage(name, Membership::Static, mode) else {
        return;
    };
    let simulation = ["--rate", "300", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let mut first = start(&stage, "same", "first");
    wait_owned(&first, 4);
    let mut second = start(&stage, "same", "second");
    assert_eq!(first.wait_exit(PATIENCE).code(), Some(1), "{}", first.log());
    let log = first.log();
    let said = |line: &str| line.starts_with("error: ") && line.contains("delivery.instance");
    assert!(log.lines().any(said), "{log}");
    wait_owned(&second, 4);
    simulation.stop();
    simulation.wait_written(PATIENCE);
    stage.wait_committed(stage.group(), PATIENCE);
    second.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
}

#[test]
fn fs_78_of_two_processes_that_are_one_static_member_the_older_one_ends_and_says_why() {
    the_older_double_ends("double", "at_least_once");
}

/// Whichever of its two names it loses first, the member's (`FencedInstanceId`) or the producer's.
#[test]
fn fs_36_fs_78_of_two_static_members_with_one_transactional_id_too_the_older_one_ends_and_says_why()
{
    the_older_double_ends("double-once", "exactly_once");
}

/// Neither is the older one: each has taken some name from the other before it learns of it.
fn doubles_that_begin_at_one_time(name: &str, membership: Membership, mode: &str, workers: usize) {
    let Some(stage) = stage(name, membership, mode) else {
        return;
    };
    let simulation = ["--rate", "300", "--zone-rate", "5", "--for", "10m"];
    let mut simulation = stage.beside("simulate", &simulation);
    let workers = format!("workers.count={workers}");
    let begin = |log: &str| stage.daemon_with(log, &["delivery.instance=same", &workers]);
    for round in 0..3 {
        let mut both = ["a", "b"].map(|name| begin(&format!("{name}-{round}")));
        let ended = eventually("one ends", PATIENCE, || {
            both.iter_mut().position(|one| one.ended().is_some())
        });
        let code = both[ended].wait_exit(PATIENCE).code();
        let log = both[ended].log();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("delivery.instance"), "{log}");
        let stays = &mut both[1 - ended];
        wait_owned(stays, 4);
        wait_enriched(stays, enriched(stays).unwrap_or(0.0) + 100.0);
        stays.stop();
    }
    simulation.stop();
    simulation.wait_written(PATIENCE);
    let mut last = begin("last");
    stage.wait_committed(stage.group(), PATIENCE);
    last.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
}

#[test]
fn fs_36_fs_78_of_two_static_members_that_begin_at_one_time_in_transactions_one_ends_and_one_stays()
{
    doubles_that_begin_at_one_time("double-begun", Membership::Static, "exactly_once", 1);
}

/// Each worker has names of its own, of which each process may get some.
#[test]
fn fs_36_fs_78_of_two_processes_of_two_static_workers_in_transactions_one_ends_and_one_stays() {
    doubles_that_begin_at_one_time("doubles-once", Membership::Static, "exactly_once", 2);
}

#[test]
fn fs_78_of_two_processes_of_two_static_workers_one_ends_and_one_stays() {
    doubles_that_begin_at_one_time("doubles", Membership::Static, "at_least_once", 2);
}

#[test]
fn fs_38_of_two_processes_of_two_workers_that_share_transactional_ids_one_ends_and_one_stays() {
    doubles_that_begin_at_one_time("doubles-dynamic", Membership::Dynamic, "exactly_once", 2);
}
