//! What a process of a run is told and tells, and what all ways have in common.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use ringfence::kafka::client::Settings;
use serde_json::{Value, json};

use crate::support::measure::Cost;

/// Zones a side: 10,000 zones.
pub(crate) const SIDE: usize = 100;
/// Points a side of a zone: 64 vertices.
pub(crate) const PER_EDGE: usize = 16;
/// `delivery.commit_ms`, of all ways.
pub(crate) const COMMIT_EVERY: Duration = Duration::from_millis(100);

/// The ways that are a program of their own. The second one writes what ours writes, headers too.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const PLAIN_WITH_HEADERS: &str = "plain-with-headers";

/// The variable that names properties of the clients, see [`Job::settings`].
pub(crate) const SET: &str = "RINGFENCE_BENCH_SET";

/// `workers.count` of the daemon as it comes: the cores.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// What one process is to do.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) bootstrap: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) group: String,
    /// The topic that a daemon reads, or that is only written meanwhile; empty for the other ways.
    pub(crate) zones: String,
    pub(crate) events: usize,
}

impl Job {
    /// The clients' settings, the same for all ways: the defaults, and what `RINGFENCE_BENCH_SET` says beside them, as
    /// `producer.linger.ms=5,consumer.fetch.max.bytes=1000000`.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.bootstrap, &self.group);
        let all = std::env::var(SET).unwrap_or_default();
        for one in all.split(',').filter(|one| !one.is_empty()) {
            let (key, value) = one.split_once('=').expect("`KEY=VALUE`");
            let (of, name) = key
                .split_once('.')
                .expect("`producer.NAME` or `consumer.NAME`");
            let properties = match of {
                "producer" => &mut settings.producer,
                "consumer" => &mut settings.consumer,
                other => {
                    panic!("RINGFENCE_BENCH_SET: `{other}` is neither `producer` nor `consumer`")
                }
            };
            properties.insert(name.to_owned(), value.to_owned());
        }
        settings
    }

    pub(crate) fn into_arguments(self) -> [String; 6] {
        [
            self.bootstrap,
            self.from,
            self.to,
            self.group,
            self.zones,
            self.events.to_string(),
        ]
    }

    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [bootstrap, from, to, group, zones, events] = arguments else {
            return None;
        };
        Some(Self {
            bootstrap: bootstrap.clone(),
            from: from.clone(),
            to: to.clone(),
            group: group.clone(),
            zones: zones.clone(),
            events: events.parse().ok()?,
        })
    }
}

/// From here on a panic in any thread ends the process: the others would go on, and be waited for.
pub(crate) fn end_by_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
}

/// What a child tells.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Told {
    pub(crate) cost: Cost,
    /// The most memory that it has occupied, in bytes.
    pub(crate) peak_bytes: f64,
}

/// Tells the parent.
pub(crate) fn tell(cost: Cost) {
    let peak = peak_bytes();
    let line = json!({"wall": cost.wall, "cpu": cost.cpu, "peak": peak});
    writeln!(std::io::stdout(), "{line}").expect("the parent reads");
}

/// What a child told.
pub(crate) fn told(stdout: &[u8]) -> Told {
    let told: Value = serde_json::from_slice(stdout).expect("the child reports its cost");
    let number = |name: &str| told[name].as_f64().expect("a number");
    Told {
        cost: Cost {
            wall: number("wall"),
            cpu: number("cpu"),
        },
        peak_bytes: told["peak"].as_f64().unwrap_or(f64::NAN),
    }
}

/// The most memory that this process has occupied (`VmHWM` of proc(5)).
fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024.0)
}
