//! Measures two ways of doing the same alternately, so that whatever else the machine does meets both, and reports one row
//! of the table for each figure (DESIGN 12).
//!
//! A ratio is the median of the rounds' ratios; its noise is half the width of an interval that has the true median in it with
//! 95 %, in percent of the median ([`Spread`]).

use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// What something took, in seconds.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// By the wall clock.
    pub wall: f64,
    /// In user and system time, of all threads of the process.
    pub cpu: f64,
}

impl Cost {
    /// The cost of one of `count` things.
    pub fn per(self, count: usize) -> Self {
        Self {
            wall: self.wall / count as f64,
            cpu: self.cpu / count as f64,
        }
    }
}

/// CPU time of this process until now, in seconds.
pub fn cpu_time() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// CPU time of this thread until now, in seconds.
pub fn thread_cpu_time() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

fn seconds(clock: ClockId) -> f64 {
    let spent = clock_gettime(clock);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// What `work` takes.
pub fn cost_of<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (begun, cpu) = (Instant::now(), cpu_time());
    let result = work();
    let cost = Cost {
        wall: begun.elapsed().as_secs_f64(),
        cpu: cpu_time() - cpu,
    };
    (cost, result)
}

/// What `work` takes on average, repeated for at least `at_least`.
pub fn cost_of_repeated(at_least: Duration, mut work: impl FnMut()) -> Cost {
    let mut times = 0;
    let (cost, ()) = cost_of(|| {
        let begun = Instant::now();
        while times == 0 || begun.elapsed() < at_least {
            work();
            times += 1;
        }
    });
    cost.per(times)
}

/// How often what is compared is measured: seventeen times, of which the nine in the middle tell where the true middle is
/// ([`Spread`]); once where that only shows that it works; `RINGFENCE_BENCH_ROUNDS` times where that says so.
pub fn rounds() -> usize {
    if is_quick() {
        return 1;
    }
    whole_number("RINGFENCE_BENCH_ROUNDS", 17)
}

/// How long a round measures at least, where what is measured can be repeated.
pub fn at_least() -> Duration {
    Duration::from_millis(if is_quick() { 0 } else { 200 })
}

/// `perf record` sees what `work` does, and nothing else, where `scripts/profile` has it wait to be told.
pub fn profiled<T>(work: impl FnOnce() -> T) -> T {
    tell_perf("enable");
    let result = work();
    tell_perf("disable");
    result
}

/// Says so through the pipes of `perf record --control` (perf-record(1)) in the folder `RINGFENCE_BENCH_PERF`, and waits for its
/// answer.
///
/// # Panics
/// If `perf` has gone.
pub fn tell_perf(command: &str) {
    let Some(folder) = std::env::var_os("RINGFENCE_BENCH_PERF") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    std::fs::write(folder.join("control"), format!("{command}\n")).expect("perf listens");
    let mut answer = [0; "ack\n\0".len()];
    std::fs::File::open(folder.join("answer"))
        .and_then(|mut from| from.read_exact(&mut answer))
        .expect("perf answers");
}

/// Two ways of doing the same, one pair a round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<(Cost, Cost)>);

impl Rounds {
    /// Measures both ways alternately. What is profiled is ours, unless `RINGFENCE_BENCH_PERF_OF` is `baseline`.
    pub fn measure(
        rounds: usize,
        mut ours: impl FnMut() -> Cost,
        mut baseline: impl FnMut() -> Cost,
    ) -> Self {
        let of_baseline =
            std::env::var_os("RINGFENCE_BENCH_PERF_OF").is_some_and(|of| of == "baseline");
        let round = |_| {
            if of_baseline {
                (ours(), profiled(&mut baseline))
            } else {
                (profiled(&mut ours), baseline())
            }
        };
        Self((0..rounds).map(round).collect())
    }

    /// The rounds' ratios, numerator first.
    pub fn ratios(&self, of: impl Fn(&(Cost, Cost)) -> (f64, f64)) -> Spread {
        Spread::new(self.0.iter().map(|round| {
            let (above, below) = of(round);
            above / below
        }))
    }

    /// Median costs of both.
    pub fn medians(&self) -> (Cost, Cost) {
        let median = |of: fn(&(Cost, Cost)) -> f64| Spread::new(self.0.iter().map(of)).median;
        (
            Cost {
                wall: median(|round| round.0.wall),
                cpu: median(|round| round.0.cpu),
            },
            Cost {
                wall: median(|round| round.1.wall),
                cpu: median(|round| round.1.cpu),
            },
        )
    }
}

/// The middle and the noise of repeated measurements.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// Between these two the true middle is with 95 % ([`outer`]; of five measurements or fewer with less); `None` where there was
    /// one only.
    pub interval: Option<(f64, f64)>,
}

impl Spread {
    /// Of these measurements.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let outer = outer(values.len());
        let (least, most) = (values[outer], values[values.len() - 1 - outer]);
        let upper = values[values.len() / 2];
        let median = f64::midpoint(upper, values[(values.len() - 1) / 2]);
        Self {
            median,
            interval: (values.len() > 1).then_some((least, most)),
        }
    }

    /// A figure that was measured once, or counted.
    pub fn once(value: f64) -> Self {
        Self {
            median: value,
            interval: None,
        }
    }

    /// Half the width of the interval, in percent of the middle one.
    fn noise(&self) -> Option<f64> {
        let (least, most) = self.interval?;
        Some((most - least) / 2.0 / self.median.abs() * 100.0)
    }
}

/// How many of so many measurements may be left out at either end, so that the true middle is still between the others with
/// 95 %, whatever they are distributed like: it is below the smallest of them but `k` only if `k` or fewer fell below it, each as
/// by a coin (David and Nagaraja, "Order Statistics", 3rd ed., 7.1). None below nine: all of seven are 98 %, of five 94 %.
fn outer(count: usize) -> usize {
    let mut ways = 1.0;
    let mut at_most = 0.0;
    (0..count / 2)
        .take_while(|fell| {
            at_most += ways / 2_f64.powi(count as i32);
            ways = ways * (count - fell) as f64 / (fell + 1) as f64;
            2.0 * at_most <= 0.05
        })
        .last()
        .unwrap_or(0)
}

/// What DESIGN 12 asks of a figure: what it must reach, and what it should.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Target {
    /// Both from below.
    AtLeast(f64, f64),
    /// Both from above.
    AtMost(f64, f64),
    /// Nothing: it is there to be known.
    None,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What is measured.
    pub what: &'a str,
    /// Our side, with its unit.
    pub ours: String,
    /// What it is held against, with its unit.
    pub baseline: String,
    /// The figure.
    pub value: Spread,
    /// What it should be.
    pub target: Target,
}

impl Row<'_> {
    /// Reports it: to the files that `scripts/bench` reads (`RINGFENCE_BENCH_OUT`), and for whoever watches.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn report(&self) {
        let value = self.value.median;
        let (must, aim, holds, sign) = match self.target {
            Target::AtLeast(must, aim) => (Some(must), Some(aim), value >= must, "≥ "),
            Target::AtMost(must, aim) => (Some(must), Some(aim), value <= must, "≤ "),
            Target::None => (None, None, false, ""),
        };
        // A verdict that the next run may well turn round is none.
        let clear = must.is_some_and(|must| {
            let (least, most) = self.value.interval.unwrap_or((value, value));
            must <= least || must >= most
        });
        let holds = clear.then_some(holds);
        let bound =
            |bound: Option<f64>| bound.map_or("–".to_owned(), |bound| format!("{sign}{bound}"));
        let line = format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            self.ours,
            self.baseline,
            figure(value),
            bound(must),
            bound(aim),
            match (must, holds) {
                (None, _) => "–",
                (_, None) => "unclear",
                (_, Some(true)) => "yes",
                (_, Some(false)) => "**no**",
            },
            self.value
                .noise()
                .map_or("–".to_owned(), |noise| format!("±{noise:.1} %")),
        );
        say(&line);
        let Some(out) = std::env::var_os("RINGFENCE_BENCH_OUT") else {
            return;
        };
        let object = json!({
            "name": self.what,
            "value": value,
            "must": must,
            "aim": aim,
            "holds": holds,
            "noise": self.value.noise(),
        });
        for (file, line) in [("table.md", line), ("rows.jsonl", object.to_string())] {
            let path = std::path::Path::new(&out).join(file);
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .expect("the directory of RINGFENCE_BENCH_OUT exists");
            writeln!(file, "{line}").expect("the row is written");
        }
    }
}

/// Tells whoever watches.
pub fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// A number with the digits that mean something.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count as one speaks of it: `10 k`, `1 M`.
pub fn thousands(count: usize) -> String {
    match count {
        1_000_000.. => format!("{:.0} M", count as f64 / 1e6),
        1_000.. => format!("{:.0} k", count as f64 / 1e3),
        _ => count.to_string(),
    }
}

/// A cost with a unit that suits it, CPU time first.
pub fn shown(cost: Cost) -> String {
    let (unit, factor) = match cost.cpu.max(cost.wall) {
        seconds if seconds < 1e-6 => ("ns", 1e9),
        seconds if seconds < 1e-3 => ("µs", 1e6),
        seconds if seconds < 1.0 => ("ms", 1e3),
        _ => ("s", 1.0),
    };
    format!(
        "{} {unit} CPU, {} {unit} wall",
        figure(cost.cpu * factor),
        figure(cost.wall * factor)
    )
}

/// Whether to run this part: `RINGFENCE_BENCH_ONLY` names some, separated by commas; without it all are run.
pub fn is_wanted(part: &str) -> bool {
    std::env::var("RINGFENCE_BENCH_ONLY")
        .map_or(true, |only| only.split(',').any(|wanted| wanted == part))
}

/// How many events go end to end: `RINGFENCE_BENCH_EVENTS`, or a million.
pub fn events() -> usize {
    whole_number("RINGFENCE_BENCH_EVENTS", 1_000_000)
}

fn whole_number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| {
        let number: NonZeroUsize = number
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a whole number above zero"));
        number.get()
    })
}

/// Whether each benchmark is to run once only, over small worlds: to see that all of them work.
pub fn is_quick() -> bool {
    std::env::var_os("RINGFENCE_BENCH_QUICK").is_some()
}
