//! Times how long records linger in a producer, in the client's place.
//!
//! The idempotent client has one batch of a partition under way. Once what follows it has lingered for `linger.ms`, its
//! thread polls without a pause until that batch is answered (librdkafka 2.12, `rd_kafka_msgq_allow_wakeup_at`): most of a
//! core for as long as an answer takes longer than that, taken from the very broker where they share a machine (at two cores
//! a sixth of an event's cost, up to a half). So the client is told a linger beyond the answer of a starved broker, and a thread sends
//! what waits every `linger.ms`, by a flush that lasts just long enough to be heeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::ffi::flush;

/// How long a flush lasts: the client's threads look at what lingers if they are woken within it.
const FLUSH: Duration = Duration::from_millis(1);
/// What the client is told: what waits is sent so late at the latest, should no flush be heeded. Beyond what a starved broker
/// takes to answer: polling begins here, and of two cores it leaves such a broker nothing. With half a second here two workers
/// beside a broker and other load kept each other from going on for 19 s (3,700 of 4,000 samples a second were theirs).
const CLIENT_LINGER: Duration = Duration::from_secs(10);
/// Below this the client times its linger itself: it would be flushing most of the time.
const LINGER_MIN: Duration = Duration::from_millis(5);
/// From here on too: who asks for so much is not in a hurry.
const LINGER_END: Duration = Duration::from_millis(500);

/// Takes the linger out of a producer's settings where it is to be timed here: its length. Not of transactions, whose ends
/// flush as it is: what other flushes do beside those was not tried for long enough.
pub(super) fn take(config: &mut ClientConfig) -> Option<Duration> {
    // The second is the other name of the same property.
    let is_kept = |name| config.get(name).is_some();
    if is_kept("transactional.id") || is_kept("queue.buffering.max.ms") {
        return None;
    }
    let millis: f64 = config.get("linger.ms")?.parse().ok()?;
    let linger = Duration::try_from_secs_f64(millis / 1e3).ok()?;
    if !(LINGER_MIN..LINGER_END).contains(&linger) {
        return None;
    }
    config.set("linger.ms", CLIENT_LINGER.as_millis().to_string());
    Some(linger)
}

/// The thread that sends what lingers in one producer.
pub(super) struct Lingering {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lingering {
    /// Sends what waits in `producer` every `linger`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start<C: ProducerContext + 'static>(
        producer: Arc<BaseProducer<C>>,
        linger: Duration,
    ) -> std::io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::Builder::new()
            .name("linger".to_owned())
            .spawn(move || {
                while !seen.load(Ordering::Acquire) {
                    std::thread::park_timeout(linger);
                    if producer.in_flight_count() > 0 {
                        flush(&producer, FLUSH);
                    }
                }
            })?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseRecord, DefaultProducerContext};

    use super::*;
    use crate::clock::Clock;
    use crate::kafka::client::Settings;
    use crate::kafka::mock::EmbeddedCluster;

    #[test]
    fn a_linger_is_taken_from_whoever_set_it_unless_it_is_too_short_or_long() {
        let taken = |properties: &[(&str, &str)]| {
            let mut config = ClientConfig::new();
            for (name, value) in properties {
                config.set(*name, *value);
            }
            let linger = take(&mut config);
            (linger, config.get("linger.ms").map(str::to_owned))
        };
        let told = Some("10000".to_owned());
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(taken(&[("linger.ms", "20")]), (millis(20), told.clone()));
        assert_eq!(taken(&[("linger.ms", "5.0")]), (millis(5), told));
        for kept in ["0", "4.9", "500", "60000", "-1", "NaN", "soon"] {
            assert_eq!(taken(&[("linger.ms", kept)]), (None, Some(kept.to_owned())));
        }
        let alias = [("linger.ms", "20"), ("queue.buffering.max.ms", "7")];
        assert_eq!(taken(&alias), (None, Some("20".to_owned())));
        let transactional = [("linger.ms", "20"), ("transactional.id", "once")];
        assert_eq!(taken(&transactional), (None, Some("20".to_owned())));
        assert_eq!(taken(&[]), (None, None));
    }

    /// The leader: threads of clients are named by broker, and no other test has as many.
    const LEADER: i32 = 9;

    /// Processor time of the clients' threads for the leader, in ticks of the kernel.
    fn client_ticks() -> u64 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
            name.ends_with("rdk:broker9").then_some(ticks)
        };
        tasks.filter_map(of_task).sum()
    }

    /// A record a millisecond to a broker that answers late; gives the ticks that the client's thread takes for it.
    fn ticks_beside_a_slow_broker(is_timed_here: bool) -> u64 {
        let cluster = EmbeddedCluster::start(LEADER as u16).unwrap();
        cluster.create_topic("t", 1).unwrap();
        let lead = cluster.controls().partition_leader("t", 0, Some(LEADER));
        lead.unwrap();
        let mut config =
            Settings::new(&cluster.bootstrap_servers(), "g").producer(100_000, 1 << 26);
        let linger = if is_timed_here {
            take(&mut config)
        } else {
            None
        };
        let producer: BaseProducer<DefaultProducerContext> = config.create().unwrap();
        let producer = Arc::new(producer);
        let lingering = linger.map(|linger| Lingering::start(Arc::clone(&producer), linger));
        let send = || {
            let record = BaseRecord::<(), [u8]>::to("t").payload(&b"x"[..]);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        };
        let begun = Clock::instant();
        let limit = Duration::from_secs(60);
        send();
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
            assert!(begun.elapsed() < limit, "the first record is answered");
        }
        // Longer than the longest linger that is timed here: a broker that is starved answers as late, and must not be starved more.
        let late = Duration::from_millis(1_200);
        let slow = cluster.controls().broker_round_trip_time(LEADER, late);
        slow.unwrap();
        let before = client_ticks();
        let begun = Clock::instant();
        while begun.elapsed() < Duration::from_secs(4) {
            send();
            producer.poll(Duration::from_millis(1));
        }
        let ticks = client_ticks() - before;
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
            assert!(begun.elapsed() < limit, "all is sent and answered");
        }
        drop(lingering);
        println!("{ticks} ticks, timed here: {is_timed_here}");
        ticks
    }

    #[test]
    fn a_broker_that_answers_late_is_waited_for_without_polling() {
        let ours = ticks_beside_a_slow_broker(true);
        let the_clients = ticks_beside_a_slow_broker(false);
        assert!(
            the_clients > 20,
            "the client polls without a pause: {the_clients} ticks"
        );
        assert!(ours * 2 < the_clients, "{ours} of {the_clients} ticks");
    }
}
