//! The brokers and the network before them: which one a fault means, what is done to it, and whether all is whole again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;

use super::plan::{ClusterFault, Target};
use super::proxy::Proxy;
use crate::support::daemon::eventually;
use crate::support::kafka::Cluster;

const BROKERS: u16 = 3;
/// Leaders go home soon after their broker is back: one more move of them to bear.
const PROPERTIES: &str =
    "leader.imbalance.check.interval.seconds=10\nleader.imbalance.per.broker.percentage=0";
/// How long a broker that was killed stays away: leaders move meanwhile.
const AWAY: Duration = Duration::from_secs(3);
/// How long the network is slow, or cut again and again.
const TROUBLE: Duration = Duration::from_secs(10);
/// A busy machine starts a used broker in a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the targets stand for.
pub(super) struct Names {
    pub(super) zones: String,
    pub(super) group: String,
    pub(super) transactional_id: String,
}

/// Three brokers, each with a proxy before it.
pub(super) struct Brokers {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    asker: BaseConsumer,
    moves: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

fn asker(address: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.max.ms", "500")
        // It is asked while brokers are down, and says nothing else.
        .set("log_level", "0")
        .create()
        .expect("a client")
}

/// Lets this time pass.
#[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
pub(super) fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::park_timeout(until - Instant::now());
    }
}

/// The partition of an internal topic that Kafka keeps a name's state in: Java's hash of it.
fn home_of(name: &str, partitions: usize) -> usize {
    let hash = name.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash & i32::MAX).unsigned_abs() as usize % partitions
}

impl Brokers {
    /// Starts them on ports from `port` on: twelve in all.
    pub(super) fn start(port: u16) -> Self {
        let proxied = port + 3 * BROKERS;
        let cluster = Cluster::start_at(port, BROKERS, Some(proxied), PROPERTIES);
        let proxies = (1..=BROKERS)
            .map(|node| Proxy::start(proxied + node - 1, cluster.behind_proxy(node, BROKERS)))
            .collect();
        let asker = asker(cluster.address());
        Self {
            cluster,
            proxies,
            asker,
            moves: Arc::new(AtomicU64::new(0)),
            is_over: Arc::new(AtomicBool::new(false)),
        }
    }

    pub(super) fn address(&self) -> &str {
        self.cluster.address()
    }

    pub(super) fn proxied_address(&self) -> String {
        let ports: Vec<_> = self
            .proxies
            .iter()
            .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
            .collect();
        ports.join(",")
    }

    /// Counts how often a partition gets another leader, from now on.
    pub(super) fn watch_leaders(&self) {
        let asker = asker(self.address());
        let (moves, is_over) = (Arc::clone(&self.moves), Arc::clone(&self.is_over));
        std::thread::spawn(move || {
            let mut leaders = BTreeMap::new();
            while !is_over.load(Ordering::Relaxed) {
                pass(Duration::from_millis(500));
                let Ok(metadata) = asker.fetch_metadata(None, Duration::from_secs(2)) else {
                    continue;
                };
                for topic in metadata.topics() {
                    for partition in topic.partitions().iter().filter(|one| one.leader() > 0) {
                        let name = (topic.name().to_owned(), partition.id());
                        let before = leaders.insert(name, partition.leader());
                        if before.is_some_and(|before| before != partition.leader()) {
                            moves.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
    }

    pub(super) fn leader_moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    fn metadata(&self, what: &str) -> Metadata {
        eventually(what, PATIENCE, || {
            self.asker.fetch_metadata(None, Duration::from_secs(3)).ok()
        })
    }

    /// The node that is meant.
    fn node(&self, target: Target, names: &Names) -> u16 {
        eventually("the target has a leader", PATIENCE, || {
            let metadata = self.metadata("the cluster tells its leaders");
            let partitions = |name: &str| {
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                topic
                    .map(|topic| topic.partitions())
                    .filter(|all| !all.is_empty())
            };
            let leader_of = |topic: &str, name: &str| {
                let all = partitions(topic)?;
                let home = home_of(name, all.len());
                Some(all.iter().find(|one| one.id() as usize == home)?.leader())
            };
            let zones = partitions(&names.zones)?;
            let node = match target {
                Target::ZonesLeader => zones[0].leader(),
                Target::ZonesFollower => *zones[0]
                    .replicas()
                    .iter()
                    .find(|id| **id != zones[0].leader())?,
                Target::GroupCoordinator => leader_of("__consumer_offsets", &names.group)?,
                // At least once there is none: then it is any broker.
                Target::TransactionCoordinator => {
                    leader_of("__transaction_state", &names.transactional_id)
                        .unwrap_or(zones[1].leader())
                }
            };
            u16::try_from(node).ok().filter(|node| *node > 0)
        })
    }

    /// Does it, for as long as it takes, and mends it.
    pub(super) fn suffer(&self, fault: ClusterFault, names: &Names) {
        match fault {
            ClusterFault::KillBroker(target) => {
                self.cluster.end(self.node(target, names), "KILL");
                pass(AWAY);
                self.cluster.up();
            }
            ClusterFault::StopBroker(target) => {
                self.cluster.end(self.node(target, names), "TERM");
                pass(AWAY);
                self.cluster.up();
            }
            ClusterFault::FreezeBroker(target, time) => {
                let node = self.node(target, names);
                self.cluster.signal(node, "STOP");
                pass(time);
                self.cluster.signal(node, "CONT");
            }
            ClusterFault::Cut(target) => {
                let proxy = self.proxy(target, names);
                for _ in 0..10 {
                    proxy.cut();
                    pass(TROUBLE / 10);
                }
            }
            ClusterFault::Slow(target, delay) => {
                let proxy = self.proxy(target, names);
                proxy.delay(delay);
                pass(TROUBLE);
                proxy.delay(Duration::ZERO);
            }
            ClusterFault::Stall(target, time) => {
                let proxy = self.proxy(target, names);
                proxy.stall(true);
                pass(time);
                proxy.stall(false);
            }
        }
        self.wait_whole();
    }

    fn proxy(&self, target: Target, names: &Names) -> &Proxy {
        &self.proxies[usize::from(self.node(target, names)) - 1]
    }

    /// Waits until every replica of every partition is in sync: with two of three away nothing could be written.
    pub(super) fn wait_whole(&self) {
        eventually("all replicas are in sync", PATIENCE, || {
            let metadata = self.metadata("the cluster tells its replicas");
            let mut partitions = metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions());
            partitions
                .all(|one| one.leader() > 0 && one.isr().len() == one.replicas().len())
                .then_some(())
        });
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn names_hash_as_java_does() {
    // "abc".hashCode() = 96354; "polygenelubricants".hashCode() = Integer.MIN_VALUE.
    assert_eq!(home_of("abc", 1_000_000), 96_354);
    assert_eq!(home_of("polygenelubricants", 50), 0);
}
