//! The kill matrix (issue 4): three processes on a Kafka of three brokers, under faults that a seed decides, with the
//! generator and the independent audit running along. Run it by `scripts/torture`.
//!
//! By its environment: `RINGFENCE_TORTURE_MODE` (`exactly_once`, `at_least_once`), `_MINUTES`, `_SEED`, `_PROOF` (`end`,
//! `marker`), `_PORT` (twelve from there on), `_PLANT` (a defect that must turn it red), and `RINGFENCE_TEST_BINARY`. Logs of
//! all processes stay in `target/torture/`.

mod brokers;
mod field;
mod plan;
pub(crate) mod proxy;
mod tally;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brokers::{Brokers, Names, pass};
use field::{Field, Group, now};
use plan::Plan;
use serde_json::Value;
use tally::{Findings, Mode};

use crate::support::daemon::eventually;
use crate::support::kafka::free_ports;
use crate::support::stage::{Beside, Stage};
use crate::support::tamper::{Plant, Relay};
use crate::support::zones::rectangle;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Events a second.
const RATE: &str = "2000";
/// At least so many things are done to processes in a round.
const STRIKES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(240);

struct Options {
    mode: Mode,
    length: Duration,
    seed: u64,
    port: u16,
    /// `gate.proof`.
    proof: String,
    plant: Option<Plant>,
}

impl Options {
    fn from_environment() -> Self {
        let read = |name: &str| std::env::var(format!("RINGFENCE_TORTURE_{name}")).ok();
        let mode = match read("MODE").as_deref() {
            Some("at_least_once") => Mode::AtLeastOnce,
            Some("exactly_once") | None => Mode::ExactlyOnce,
            Some(other) => panic!("`{other}` is no mode"),
        };
        let minutes = read("MINUTES").map_or(1.0, |text| text.parse().expect("minutes"));
        Self {
            mode,
            length: Duration::from_secs_f64(minutes * 60.0),
            seed: read("SEED").map_or(1, |text| text.parse().expect("a seed")),
            port: read("PORT").map_or_else(|| free_ports(12), |text| text.parse().expect("a port")),
            proof: read("PROOF").unwrap_or_else(|| "end".to_owned()),
            plant: read("PLANT")
                .map(|name| Plant::named(&name).unwrap_or_else(|| panic!("`{name}` is no defect"))),
        }
    }

    /// Where logs stay, whatever becomes of the run.
    fn folder(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || concat!(env!("CARGO_MANIFEST_DIR"), "/target").into(),
            PathBuf::from,
        );
        let folder = target.join(format!("torture/{}-{}", self.mode.name(), self.seed));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).expect("the target is writable");
        folder
    }
}

/// The configuration of each process: through the proxies, with a name of its own.
fn configs(
    stage: &Stage,
    options: &Options,
    address: &str,
    folder: &Path,
) -> Vec<(&'static str, PathBuf)> {
    let text = std::fs::read_to_string(&stage.config).expect("the stage has a configuration");
    let of = |name: &'static str| {
        let proxied: Vec<_> = text
            .lines()
            .map(|line| {
                if line.contains("bootstrap.servers") {
                    format!("\"bootstrap.servers\" = \"{address}\"")
                } else {
                    line.to_owned()
                }
            })
            .collect();
        let path = folder.join(format!("{name}.toml"));
        let text = format!(
            "{}\n[kafka.producer]\n\"transaction.timeout.ms\" = \"8000\"\n\n[delivery]\nmode = \"{}\"\ninstance = \"{name}\"\n\n[gate]\nproof = \"{}\"\n",
            proxied.join("\n"),
            options.mode.name(),
            options.proof
        );
        std::fs::write(&path, text).expect("the folder is writable");
        (name, path)
    };
    NAMES.map(of).into()
}

/// The generator and the audit, which both outlive everything.
struct Witnesses {
    simulation: Beside,
    audit: Beside,
    mode: Mode,
    judged: u64,
}

impl Witnesses {
    fn start(stage: &Stage, options: &Options) -> Self {
        let mut follow = vec!["--follow", "--every", "2s"];
        if options.mode == Mode::ExactlyOnce {
            follow.push("--exactly-once");
        }
        let audit = stage.beside("verify", &follow);
        let seed = options.seed.to_string();
        let world = [
            "--rate",
            RATE,
            "--zone-rate",
            "20",
            "--invalid",
            "0.01",
            "--seed",
            &seed,
        ];
        let simulation = stage.beside("simulate", &world);
        Self {
            simulation,
            audit,
            mode: options.mode,
            judged: 0,
        }
    }

    fn assert_alive(&mut self) {
        for (name, beside) in [
            ("simulate", &mut self.simulation),
            ("verify", &mut self.audit),
        ] {
            if let Some(status) = beside.ended() {
                panic!("{name} ended with {status}: {}", beside.log());
            }
        }
    }

    /// What the audit has found by now, once it has judged more than in the round before.
    fn read(&mut self) -> Value {
        let known = self.audit.reported().map_or(0, |(count, _)| count);
        let before = self.judged;
        let report = eventually("the audit judges more", PATIENCE, || {
            self.assert_alive();
            let (count, report) = self.audit.reported()?;
            let judged = report["judged"].as_u64().expect("a count");
            // One that was begun before now may have missed something.
            (count >= known + 2 && judged > before).then_some(report)
        });
        self.judged = report["judged"].as_u64().expect("a count");
        assert!(Findings::of(&report).is_allowed(self.mode), "{report:#}");
        report
    }
}

fn round(
    number: u32,
    plan: &mut Plan,
    brokers: &Brokers,
    names: &Names,
    field: &mut Field,
    witnesses: &mut Witnesses,
) {
    let faults = plan.round();
    eprintln!("round {number}: {faults:?}");
    for fault in faults {
        field.tally.add(plan::kind(fault), 1);
    }
    std::thread::scope(|scope| {
        let suffering = scope.spawn(|| {
            for fault in faults {
                brokers.suffer(fault, names);
            }
        });
        let mut strikes = 0;
        let mut next = plan.strike();
        let mut due = now() + next.after;
        while !suffering.is_finished() || strikes < STRIKES {
            field.tick();
            witnesses.assert_alive();
            if now() >= due {
                field.strike(next);
                strikes += 1;
                next = plan.strike();
                due = now() + next.after;
            }
            pass(Duration::from_millis(50));
        }
        suffering.join().expect("the cluster recovers");
    });
    field.settle();
    let report = witnesses.read();
    eprintln!(
        "round {number}: judged {}, {}",
        report["judged"],
        Findings::of(&report)
    );
}

fn summary(
    options: &Options,
    begun: Instant,
    rounds: u32,
    events: &Value,
    found: Findings,
) -> String {
    format!(
        "torture {}: seed {}, {:.1} minutes, {rounds} rounds, {events} records, {found}",
        options.mode.name(),
        options.seed,
        begun.elapsed().as_secs_f64() / 60.0,
    )
}

#[test]
#[ignore = "takes minutes and a cluster of its own: `scripts/torture`"]
fn nothing_is_lost_doubled_or_wrong_under_any_fault() {
    let options = Options::from_environment();
    eprintln!("torture {}: seed {}", options.mode.name(), options.seed);
    let folder = options.folder();
    let brokers = Brokers::start(options.port);
    let mut stage = Stage::on(brokers.address(), "torture", "");
    stage.create_topics(8, &["--replication", "3"]);
    // A process is not ready before there is a zone.
    let elsewhere = rectangle("elsewhere", 0.0, 0.0, 1.0, 1.0, "");
    stage.write("zones", [(None, "elsewhere".to_owned(), elsewhere)]);
    let names = Names {
        zones: stage.topic("zones"),
        group: stage.group().to_owned(),
        transactional_id: format!("{}.a.0", stage.group()),
    };
    let members = Group {
        address: brokers.address().to_owned(),
        name: stage.group().to_owned(),
        topic: stage.topic("telemetry"),
    };
    let configs = configs(&stage, &options, &brokers.proxied_address(), &folder);
    let mut field = Field::new(options.mode, &folder, configs, members);
    // From here on a relay with a defect stands between the processes and whoever looks at them.
    let relay = options.plant.map(|plant| {
        eprintln!("planted: {}", plant.name());
        Relay::start(&stage, brokers.address(), 3, Some(plant))
    });
    let mut group = stage.group().to_owned();
    if let Some(relay) = &relay {
        stage.config.clone_from(&relay.config);
        group.clone_from(&relay.group);
    }
    field.settle();
    let mut witnesses = Witnesses::start(&stage, &options);
    witnesses.read();
    brokers.watch_leaders();

    let begun = now();
    let mut plan = Plan::new(options.seed, NAMES.len());
    let mut rounds = 0;
    while begun.elapsed() < options.length {
        rounds += 1;
        round(
            rounds,
            &mut plan,
            &brokers,
            &names,
            &mut field,
            &mut witnesses,
        );
    }

    witnesses.simulation.stop();
    let written = witnesses.simulation.wait_written(PATIENCE);
    eventually("all of it is committed", PATIENCE, || {
        field.tick();
        stage.has_committed(&group).then_some(())
    });
    field.settle();
    // It may be behind on a busy machine, and is told to stop by a signal, not by an end.
    let events = written["events"].as_u64().expect("a count");
    eventually("the audit has judged all of it", PATIENCE, || {
        field.tick();
        let (_, report) = witnesses.audit.reported()?;
        (report["judged"].as_u64() == Some(events)).then_some(())
    });
    let mut tally = field.stop();
    tally.add("leader moves", brokers.leader_moves());
    witnesses.audit.stop();
    let (_, followed) = witnesses.audit.wait(PATIENCE);
    let strictly: &[&str] = if options.mode == Mode::ExactlyOnce {
        &["--exactly-once"]
    } else {
        &[]
    };
    let whole = stage.verify(strictly);
    let found = Findings::of(&whole);
    eprintln!(
        "{}",
        summary(&options, begun, rounds, &written["events"], found)
    );
    eprintln!("  {tally}");
    tally.assert_enough(begun.elapsed());
    eprintln!("  simulate: {written}");
    for report in [&followed, &whole] {
        assert!(Findings::of(report).is_allowed(options.mode), "{report:#}");
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(report["gate_violations"], 0, "{report:#}");
        assert_eq!(
            report["judged"], written["events"],
            "every record is judged: {report:#}"
        );
    }
}
