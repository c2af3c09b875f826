//! The Ringfence processes under torture: what is done to them, and the supervisor that starts each again as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::plan::{ProcessFault, Strike};
use super::tally::{Mode, Tally};
use crate::support::daemon::{Daemon, eventually};

/// Longer than a session (6 s) and a transaction (8 s) live.
const FROZEN: Duration = Duration::from_secs(11);
const STEPPED: Duration = Duration::from_secs(10);
/// A drained stop while brokers are away, and a zombie's end.
const ENDING: Duration = Duration::from_secs(60);
/// For so long a thawed process that may go on is watched beside its successor.
const WATCHED: Duration = Duration::from_secs(5);
/// So many members join the group, one after the other, and leave it.
const STORM: u32 = 10;
const READY: Duration = Duration::from_secs(180);

/// One configuration, and whoever runs it.
struct Process {
    name: &'static str,
    config: PathBuf,
    /// What is added to its wall clock.
    step: PathBuf,
    daemon: Daemon,
    starts: u32,
    state: State,
    /// Whether the running one was stopped for longer than its group waits.
    was_frozen: bool,
    unsteps_at: Option<Instant>,
}

/// What was done to it.
enum State {
    Whole,
    Frozen {
        until: Instant,
    },
    /// It was told to stop.
    Ending {
        until: Instant,
    },
}

/// Was frozen while its successor took its place.
struct Zombie {
    daemon: Daemon,
    thaws_at: Instant,
    is_thawed: bool,
}

/// The processes, the group that they are in, and what was done to them.
pub(super) struct Field {
    pub(super) tally: Tally,
    mode: Mode,
    folder: PathBuf,
    /// Steps the clocks, where a C compiler is at hand to make it.
    clock: Option<PathBuf>,
    processes: Vec<Process>,
    zombies: Vec<Zombie>,
    storm: Vec<JoinHandle<()>>,
    group: Group,
}

/// What the members of a storm join.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) address: String,
    pub(super) name: String,
    pub(super) topic: String,
}

#[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

fn step_clock(file: &Path, millis: i64) {
    // In place: the process has it mapped.
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(file);
    std::io::Write::write_all(&mut opened.expect("a file of ours"), &millis.to_ne_bytes())
        .expect("the folder is writable");
}

/// Compiles the stepped clock.
fn stepped_clock(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/torture/clock.c");
    let compiled = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    compiled
        .is_ok_and(|status| status.success())
        .then_some(library)
}

fn is_ready(process: &Process) -> bool {
    matches!(process.daemon.get("/readyz"), Some((200, _)))
}

impl Process {
    fn start(name: &'static str, config: PathBuf, folder: &Path, clock: Option<&PathBuf>) -> Self {
        let step = folder.join(format!("{name}.clock"));
        let daemon = Self::run(name, 1, &config, folder, &step, clock);
        Self {
            name,
            config,
            step,
            daemon,
            starts: 1,
            state: State::Whole,
            was_frozen: false,
            unsteps_at: None,
        }
    }

    fn run(
        name: &str,
        number: u32,
        config: &Path,
        folder: &Path,
        step: &Path,
        clock: Option<&PathBuf>,
    ) -> Daemon {
        // Whoever starts with a wrong clock has no way to know it (DESIGN 4: at the start T is the wall clock).
        step_clock(step, 0);
        let environment: Vec<_> = clock
            .map(|library| {
                [
                    ("LD_PRELOAD", library.clone()),
                    ("TORTURE_CLOCK", step.to_owned()),
                ]
            })
            .into_iter()
            .flatten()
            .collect();
        Daemon::start_in(
            config,
            folder,
            &format!("{name}-{number:03}"),
            &[],
            &environment,
        )
    }
}

impl Field {
    pub(super) fn new(
        mode: Mode,
        folder: &Path,
        configs: Vec<(&'static str, PathBuf)>,
        group: Group,
    ) -> Self {
        let clock = stepped_clock(folder);
        let processes = configs
            .into_iter()
            .map(|(name, config)| Process::start(name, config, folder, clock.as_ref()))
            .collect();
        Self {
            tally: Tally::default(),
            mode,
            folder: folder.to_owned(),
            clock,
            processes,
            zombies: Vec::new(),
            storm: Vec::new(),
            group,
        }
    }

    fn start_again(&mut self, at: usize) -> Daemon {
        let process = &mut self.processes[at];
        process.starts += 1;
        process.state = State::Whole;
        process.was_frozen = false;
        process.unsteps_at = None;
        let daemon = Process::run(
            process.name,
            process.starts,
            &process.config,
            &self.folder,
            &process.step,
            self.clock.as_ref(),
        );
        std::mem::replace(&mut process.daemon, daemon)
    }

    /// Takes down what a process that has ended, or is about to, has to tell.
    fn bury(tally: &mut Tally, daemon: &Daemon) {
        let log = daemon.log();
        assert!(!log.contains("panicked at"), "a panic: {log}");
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count() as u64;
        tally.add("assignments", count(" assigned partitions="));
        tally.add("transactions aborted", count("transaction aborted"));
        tally.add("clients made anew", count("it is made anew"));
        // By its log, as it tells them however it ends.
        tally.add("gate violations", count("later than the settle margin"));
    }

    /// What is due: thaws, clocks, and a new start of whatever has ended.
    pub(super) fn tick(&mut self) {
        let now = now();
        for at in 0..self.processes.len() {
            let process = &mut self.processes[at];
            if process.unsteps_at.is_some_and(|due| now >= due) {
                process.unsteps_at = None;
                step_clock(&process.step, 0);
            }
            if let State::Frozen { until } = process.state
                && now >= until
            {
                process.daemon.signal("CONT");
                process.state = State::Whole;
            }
            let Some(status) = process.daemon.ended() else {
                if let State::Ending { until } = process.state {
                    assert!(
                        now < until,
                        "no end after SIGTERM: {}",
                        process.daemon.log()
                    );
                }
                continue;
            };
            let log = process.daemon.log();
            let last = log.lines().last().unwrap_or_default().to_owned();
            let was_told = matches!(process.state, State::Ending { .. });
            if !(was_told && status.success()) {
                assert_eq!(status.code(), Some(1), "an end with a reason: {log}");
                eprintln!("  {} ended by itself: {last}", process.name);
                // A drain may not come to its end while brokers are away. Nothing else that is done here is a reason:
                // whatever befalls the brokers is outlived, and no successor is fenced by the zombie before it.
                let kind = if was_told && !last.contains("fenced") {
                    "drains cut short"
                } else if process.was_frozen && last.contains("stood still") {
                    "ended as they had stood still"
                } else {
                    panic!("{} ended by itself: {log}", process.name);
                };
                self.tally.add(kind, 1);
            }
            Self::bury(&mut self.tally, &process.daemon);
            drop(self.start_again(at));
        }
        self.zombies.retain_mut(|zombie| {
            if !zombie.is_thawed && now >= zombie.thaws_at {
                zombie.daemon.signal("CONT");
                zombie.is_thawed = true;
            }
            match zombie.daemon.ended() {
                Some(status) => {
                    let log = zombie.daemon.log();
                    assert_eq!(status.code(), Some(1), "a zombie ends with a reason: {log}");
                    assert!(
                        log.contains("stood still") || log.contains("fenced"),
                        "a zombie says what it is: {log}"
                    );
                    self.tally.add("zombies ended", 1);
                }
                // At least once it is a member like any other, for ever.
                None if self.mode == Mode::AtLeastOnce && now >= zombie.thaws_at + WATCHED => {
                    zombie.daemon.signal("KILL");
                }
                None if now < zombie.thaws_at + ENDING => return true,
                None => panic!("a zombie goes on: {}", zombie.daemon.log()),
            }
            Self::bury(&mut self.tally, &zombie.daemon);
            false
        });
    }

    /// Does it, to the process that is meant or the next one that is whole.
    pub(super) fn strike(&mut self, strike: Strike) {
        let count = self.processes.len();
        let whole = (0..count)
            .map(|at| (strike.victim + at) % count)
            .find(|at| matches!(self.processes[*at].state, State::Whole));
        let Some(at) = whole else { return };
        let now = now();
        let process = &mut self.processes[at];
        let mut what = process.name;
        let kind = match strike.fault {
            ProcessFault::Kill => {
                process.daemon.signal("KILL");
                process.daemon.wait_exit(Duration::from_secs(10));
                Self::bury(&mut self.tally, &process.daemon);
                drop(self.start_again(at));
                "kill -9"
            }
            ProcessFault::Terminate => {
                process.daemon.signal("TERM");
                process.state = State::Ending {
                    until: now + ENDING,
                };
                "SIGTERM"
            }
            ProcessFault::Freeze => {
                process.daemon.signal("STOP");
                process.was_frozen = true;
                process.state = State::Frozen {
                    until: now + FROZEN,
                };
                "SIGSTOP past the time-outs"
            }
            // One that was frozen while it registered goes on with that as it thaws, within the client, before anybody can
            // look: of those two the successor may be the one that is fenced.
            ProcessFault::Zombie if !is_ready(process) => return,
            ProcessFault::Zombie => {
                process.daemon.signal("STOP");
                let daemon = self.start_again(at);
                let thaws_at = now + FROZEN;
                self.zombies.push(Zombie {
                    daemon,
                    thaws_at,
                    is_thawed: false,
                });
                "zombie beside its successor"
            }
            ProcessFault::Step { .. } if self.clock.is_none() => return,
            ProcessFault::Step { millis } => {
                step_clock(&process.step, millis);
                process.unsteps_at = Some(now + STEPPED);
                "clock step"
            }
            ProcessFault::Storm => {
                for number in 0..STORM {
                    let group = self.group.clone();
                    self.storm
                        .push(std::thread::spawn(move || group.visit(number)));
                }
                what = "the group";
                "rebalance storm"
            }
        };
        self.tally.add(kind, 1);
        eprintln!("  {what}: {kind}");
    }

    /// Waits until nothing is done to anybody any more and every process works.
    pub(super) fn settle(&mut self) {
        eventually("all processes work again", READY, || {
            self.tick();
            let is_over = self.storm.iter().all(JoinHandle::is_finished)
                && self.zombies.is_empty()
                && self
                    .processes
                    .iter()
                    .all(|one| matches!(one.state, State::Whole) && one.unsteps_at.is_none());
            (is_over && self.processes.iter().all(is_ready)).then_some(())
        });
        for member in self.storm.drain(..) {
            member.join().expect("a member of the storm does not fail");
        }
    }

    /// Stops all processes; each must drain.
    pub(super) fn stop(mut self) -> Tally {
        for at in 0..self.processes.len() {
            let process = &mut self.processes[at];
            process.daemon.stop();
            Self::bury(&mut self.tally, &process.daemon);
        }
        self.tally
    }
}

impl Group {
    /// Joins, stays for some seconds, and leaves. It takes partitions and commits nothing.
    fn visit(&self, number: u32) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", &self.name)
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("log_level", "0")
            .create()
            .expect("a consumer");
        super::brokers::pass(Duration::from_millis(u64::from(number) * 400));
        consumer.subscribe(&[&self.topic]).expect("a topic");
        let until = now() + Duration::from_millis(2_000 + u64::from(number) * 300);
        while now() < until {
            drop(consumer.poll(Duration::from_millis(100)));
        }
    }
}
