//! The daemon as `ringfence run` starts it, zones side, gate and HTTP included, over ten thousand zones from their topic;
//! the same while zones change, and with a long history.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringfence::config::{Config, LogEnd};
use ringfence::kafka::admin::Admin;
use ringfence::kafka::client::Settings;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::run::{Handle, RunError, run};

use crate::job::{Job, PER_EDGE, SIDE};
use crate::support::measure::{self, Cost};
use crate::watch::{self, Done};
use crate::{support, topics};

/// Between two changes.
const CHANGE_EVERY: Duration = Duration::from_millis(10);

/// Makes a zones topic.
pub(crate) fn create(admin: &Admin, topic: &str) {
    let properties = [("message.timestamp.type", "LogAppendTime")];
    topics::create(admin, topic, 4, &properties);
}

/// Makes a zones topic of `side` × `side` zones; gives the bytes of their values.
pub(crate) fn fill(bootstrap: &str, admin: &Admin, topic: &str, side: usize) -> usize {
    create(admin, topic);
    let zones = (0..side * side).map(|number| zone(side, number, number));
    topics::write(bootstrap, topic, zones)
}

/// The record of zone `number` at the place of cell `place`.
fn zone(side: usize, number: usize, place: usize) -> (String, String) {
    let mut value = String::new();
    support::feature_of(number, &support::cell(side, place, PER_EDGE), &mut value);
    (support::zone_id(number), value)
}

/// The defaults, and what a job says; without dead letters.
pub(crate) fn config(job: &Job, zones: &str, telemetry: &str, enriched: &str) -> Config {
    let mut config = Config::defaults();
    config.kafka.set_common("bootstrap.servers", &job.bootstrap);
    config.kafka.set_common("group.id", &job.group);
    config.http.listen = "127.0.0.1:0".to_owned();
    config.zones.topic = zones.to_owned();
    config.telemetry.topic = telemetry.to_owned();
    config.enriched.topic = enriched.to_owned();
    config.dead_letter.topic = None;
    config
}

/// A daemon within this process.
pub(crate) struct Daemon {
    handle: Handle,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Daemon {
    pub(crate) fn start(config: Config) -> Self {
        let handle = Handle::new();
        let running = handle.clone();
        let told = |error: &RunError| measure::say(&format!("the daemon ended: {error}"));
        let thread = std::thread::spawn(move || run(&config, &running).inspect_err(told));
        Self { handle, thread }
    }

    pub(crate) fn assert_goes_on(&self) {
        assert!(!self.thread.is_finished(), "the daemon goes on");
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.handle.is_ready()
    }

    pub(crate) fn stop(self) {
        self.handle.stop();
        let ended = self.thread.join().expect("the daemon does not panic");
        ended.expect("the daemon drains");
    }
}

/// In the child.
pub(crate) fn drain(job: &Job) -> Cost {
    let mut config = config(job, &job.zones, &job.from, &job.to);
    config.telemetry.start = LogEnd::Earliest;
    let daemon = Daemon::start(config);
    let cost = watch::cost_of_outputs(job, Done::Written, || daemon.assert_goes_on());
    daemon.stop();
    cost
}

/// Changes of a tessellation, one after the other: [`support::swapped`].
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Changes(usize);

impl Iterator for Changes {
    /// A record of a zones topic.
    type Item = (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (number, place) = support::swapped(self.0, SIDE * SIDE);
        self.0 += 1;
        Some(zone(SIDE, number, place))
    }
}

/// Does so at the end of its scope, however that comes.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A hundred of these changes a second, each in all of these topics, while `work` is done.
pub(crate) fn while_changing<T>(
    bootstrap: &str,
    topics: &[String],
    changes: &mut Changes,
    work: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let settings = Settings::new(bootstrap, "bench");
            let writer = TopicWriter::new(&settings).expect("the settings are right");
            let begun = Instant::now();
            let mut made = 0;
            while !done.load(Ordering::Acquire) {
                let (key, value) = changes.next().expect("there is always one more");
                for topic in topics {
                    let record = Outgoing {
                        topic,
                        key: Some(key.as_bytes()),
                        value: Some(value.as_bytes()),
                        ..Outgoing::default()
                    };
                    assert!(writer.send(&record, made).expect("the record is taken"));
                }
                made += 1;
                for receipt in writer.receipts() {
                    receipt.outcome.expect("the change is written");
                }
                if let Some(early) = (CHANGE_EVERY * made as u32).checked_sub(begun.elapsed()) {
                    std::thread::sleep(early);
                }
            }
            let rate = made as f64 / begun.elapsed().as_secs_f64();
            measure::say(&format!("  {made} zone changes, {rate:.0} a second"));
            topics::finish(&writer);
        });
        // Also where the work panics: the scope waits for the thread.
        let _done = OnDrop(|| done.store(true, Ordering::Release));
        work()
    })
}
