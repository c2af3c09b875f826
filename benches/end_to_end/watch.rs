//! What a drain costs, by one measure for all ways: from the first outputs that stand in the output topic to the last one. What
//! came before is joining, reading zones, building an index, and the first fetch; what comes after is leaving the group.

use std::time::{Duration, Instant};

use ringfence::kafka::admin::{Admin, End};
use ringfence::partition::PartitionId;

use crate::job::Job;
use crate::support::measure::{self, Cost};
use crate::topics;

/// Between two looks at the output topic's ends: often enough for seconds that are measured, and so seldom that the broker, which
/// shares the cores, has nothing of it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same of a quick run, which is over by then.
const LOOK_EVERY_QUICK: Duration = Duration::from_millis(1);

/// For how long the cluster may not tell the ends of the output topic: one this young may have no leader yet.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// When a drain counts as done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// When as many outputs as events stand in the output topic.
    Written,
    /// When the group has committed all that was read: with transactions an output counts only then, and their markers take
    /// offsets too.
    Committed,
}

/// Watches a drain that others are at; `goes_on` is asked with each look, and panics where they are not.
pub(crate) fn cost_of_outputs(job: &Job, done: Done, goes_on: impl Fn()) -> Cost {
    let admin = topics::admin_of(&job.bootstrap, &job.group);
    let mut first: Option<(Instant, f64, usize)> = None;
    let outputs = Outputs::of(&admin, &job.to);
    loop {
        let written = outputs.look(&goes_on);
        let Some((begun, cpu, before)) = first else {
            if written > 0 {
                measure::tell_perf("enable");
                first = Some((Instant::now(), measure::cpu_time(), written));
            }
            continue;
        };
        let is_done = match done {
            Done::Written => written >= job.events,
            Done::Committed => written >= job.events && topics::is_committed(&admin, &job.from),
        };
        if is_done {
            // As if all events had been counted; a quick run may have seen none but the last.
            let all = if measure::is_quick() {
                1.0
            } else {
                assert!(
                    before < job.events / 2,
                    "{before} outputs at the first look"
                );
                job.events as f64 / (job.events - before) as f64
            };
            let cost = Cost {
                wall: begun.elapsed().as_secs_f64() * all,
                cpu: (measure::cpu_time() - cpu) * all,
            };
            measure::tell_perf("disable");
            return cost;
        }
    }
}

/// Waits until so many outputs are written, and not for what they cost.
pub(crate) fn until_written(admin: &Admin, topic: &str, count: usize, goes_on: impl Fn()) {
    let outputs = Outputs::of(admin, topic);
    while outputs.look(&goes_on) < count {}
}

/// The ends of an output topic, looked at again and again.
struct Outputs<'a> {
    admin: &'a Admin,
    topic: &'a str,
    partitions: Vec<PartitionId>,
}

impl<'a> Outputs<'a> {
    fn of(admin: &'a Admin, topic: &'a str) -> Self {
        let partitions = admin.existing(topic).expect("the topic was made").ids();
        Self {
            admin,
            topic,
            partitions,
        }
    }

    /// How many outputs stand there when it is time to look again, and the cluster tells.
    fn look(&self, goes_on: impl Fn()) -> usize {
        let look_every = if measure::is_quick() {
            LOOK_EVERY_QUICK
        } else {
            LOOK_EVERY
        };
        let begun = Instant::now();
        loop {
            goes_on();
            std::thread::sleep(look_every);
            if let Ok(ends) = self.admin.offsets(self.topic, &self.partitions, End::Log) {
                return ends.iter().map(|(_, range)| range.to.0 as usize).sum();
            }
            assert!(
                begun.elapsed() < SILENCE_MAX,
                "the cluster does not tell the ends of topic `{}`",
                self.topic
            );
        }
    }
}
