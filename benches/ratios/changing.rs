//! Lookups on one thread while another promotes and publishes: how many changes a second leave the lookups their rate, and
//! what promotions do to the slowest batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence::gate::{Degraded, Epoch, RetireList, Snapshot, SnapshotCell};
use ringfence::index::{Hits, Index, Query};
use ringfence::time::EventTime;
use ringfence::zone::StagedChange;

use crate::lookup::{self, BATCH};
use crate::plot::{self, Axis, Chart, Scale, Series, Style};
use crate::support;
use crate::support::measure::{self, Row, Spread, Target};

const PER_EDGE: usize = 16;
/// Lookups count as kept at this part of their quiet rate.
const KEPT: f64 = 0.9;
const RATES: [usize; 8] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];
/// How many promotions a second the changes of a rate come in: each tick of the gate is one.
const PROMOTIONS_PER_SECOND: usize = 100;

/// So many ms after the zones' own instant.
fn later(millis: usize) -> EventTime {
    EventTime::clamped(support::AS_OF.millis() + millis as i64)
}

fn snapshot(index: Arc<Index>, epoch: Epoch, as_of: EventTime) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        index,
        epoch,
        as_of,
        floor: EventTime::MIN,
        degraded: Degraded::No,
    })
}

struct World {
    index: Arc<Index>,
    queries: Vec<Query>,
    /// Changes to take round and round: neighbours change places, and back. So it stays a tessellation: were they moved one
    /// by one, places would be covered twice or by none, and lookups slower for that alone.
    changes: Vec<StagedChange>,
}

/// What a while of looking up gave.
struct Slice {
    /// Batches per second of the thread's own CPU time: it waits for nothing, and others' load is none of its.
    per_cpu_second: f64,
    /// What each batch took by the wall clock, in seconds.
    times: Vec<f64>,
}

impl World {
    fn new() -> Self {
        let side = if measure::is_quick() { 32 } else { 316 };
        let zones = side * side;
        let changes = (0..200_000.min(zones * 2))
            .map(|n| {
                let (number, place) = support::swapped(n, zones);
                let ring = support::cell(side, place, PER_EDGE);
                support::upsert(number, ring, (zones + n) as i64)
            })
            .collect();
        Self {
            index: Arc::new(support::index(&support::tessellation(side, PER_EDGE))),
            queries: lookup::queries(65_536, 13),
            changes,
        }
    }

    /// The zones as they are at the beginning, published.
    fn published(&self) -> SnapshotCell {
        let cell = SnapshotCell::default();
        let first = snapshot(self.index.clone(), Epoch(1), support::AS_OF);
        assert!(cell.publish(first).is_none(), "the cell was empty");
        cell
    }

    /// Looks up for so long, a snapshot loaded for each batch, as a worker does.
    fn look_up(&self, published: &SnapshotCell, lasting: Duration) -> Slice {
        let mut hits = Hits::default();
        let mut times = Vec::new();
        let cpu = measure::thread_cpu_time();
        let begun = Instant::now();
        for batch in self.queries.chunks_exact(BATCH).cycle() {
            let started = Instant::now();
            if started - begun >= lasting {
                break;
            }
            let snapshot = published.load().expect("one is published");
            snapshot.index.lookup(batch, &mut hits);
            std::hint::black_box(&hits);
            times.push(started.elapsed().as_secs_f64());
        }
        Slice {
            per_cpu_second: times.len() as f64 / (measure::thread_cpu_time() - cpu),
            times,
        }
    }

    /// Looks up for so long while another thread does something until it is told to stop; gives also what that returns.
    fn look_up_beside<T: Send>(
        &self,
        lasting: Duration,
        published: &SnapshotCell,
        other: impl FnOnce(&AtomicBool) -> T + Send,
    ) -> (Slice, T) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| other(&stop));
            let looked_up = self.look_up(published, lasting);
            stop.store(true, Ordering::Relaxed);
            (
                looked_up,
                other.join().expect("the other thread does not panic"),
            )
        })
    }

    /// Looks up for so long while `per_promotion` changes are promoted so many times a second.
    fn look_up_while_changing(
        &self,
        lasting: Duration,
        per_promotion: usize,
        promotions_per_second: usize,
    ) -> (Slice, Made) {
        let published = self.published();
        measure::profiled(|| {
            self.look_up_beside(lasting, &published, |stop| {
                self.promote(&published, per_promotion, promotions_per_second, stop)
            })
        })
    }

    /// Promotes and publishes `per_promotion` changes so many times a second until told to stop.
    fn promote(
        &self,
        published: &SnapshotCell,
        per_promotion: usize,
        promotions_per_second: usize,
        stop: &AtomicBool,
    ) -> Made {
        let mut retired = RetireList::default();
        let mut index = self.index.clone();
        let mut place = 0;
        let (promotions, made) = ticks(promotions_per_second, stop, |promoted, begun| {
            // All changes of a promotion at its own instant; the log's order tells them apart.
            let as_of = later(begun.elapsed().as_millis() as usize);
            let changes: Vec<StagedChange> = (0..per_promotion)
                .map(|n| {
                    let mut change = self.changes[(place + n) % self.changes.len()].clone();
                    change.position.offset.0 = (1 << 40) + (place + n) as i64;
                    change.valid_from = as_of;
                    change.commit_time = as_of;
                    change
                })
                .collect();
            place += per_promotion;
            let built = index
                .promote(&changes, as_of, &support::RULES)
                .expect("it builds");
            index = Arc::new(built.index);
            let next = snapshot(index.clone(), Epoch(2 + promoted), as_of);
            // I11: what no batch reads any more is freed here, and nowhere else.
            retired.retire(published.publish(next).expect("one was published"));
            retired.reclaim();
        });
        Made {
            promotions,
            per_second: promotions * per_promotion as f64,
            busy: made,
        }
    }

    /// Looks up for so long while another thread takes as much time for other work, in as many pieces.
    fn look_up_beside_work(
        &self,
        lasting: Duration,
        per_second: usize,
        busy: Duration,
        mut work: impl FnMut() + Send,
    ) -> Slice {
        let looked_up = self.look_up_beside(lasting, &self.published(), |stop| {
            ticks(per_second, stop, |_, _| {
                let begun = Instant::now();
                while begun.elapsed() < busy {
                    work();
                }
            })
        });
        looked_up.0
    }
}

/// What the promoting thread has done.
struct Made {
    promotions: f64,
    /// Changes a second.
    per_second: f64,
    /// The CPU time of a promotion.
    busy: Duration,
}

/// Calls `each` so many times a second until told to stop; gives how many a second those were, and the CPU time of one.
fn ticks(
    per_second: usize,
    stop: &AtomicBool,
    mut each: impl FnMut(u64, Instant),
) -> (f64, Duration) {
    let cpu = measure::thread_cpu_time();
    let begun = Instant::now();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(done as f64 / per_second as f64);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        each(done, begun);
        done += 1;
    }
    let busy = (measure::thread_cpu_time() - cpu) / done as f64;
    (
        done as f64 / begun.elapsed().as_secs_f64(),
        Duration::from_secs_f64(busy),
    )
}

/// Some microseconds of work within registers: all that the other core can lose to it is what the two share of themselves.
fn compute() {
    let mut state = std::hint::black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..2_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    std::hint::black_box(state);
}

/// Copies pages within memory that nobody else uses, as a promotion copies what it changes.
struct Copying {
    memory: Vec<u64>,
    seed: u64,
}

impl Copying {
    const PAGE: usize = 512;

    fn new() -> Self {
        Self {
            memory: vec![1; 8 << 20],
            seed: 1,
        }
    }

    fn copy(&mut self) {
        let pages = self.memory.len() / Self::PAGE;
        let mut page = || {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005) | 1;
            (self.seed >> 33) as usize % pages * Self::PAGE
        };
        let (from, to) = (page(), page());
        self.memory.copy_within(from..from + Self::PAGE, to);
    }
}

fn slice() -> Duration {
    Duration::from_millis(if measure::is_quick() { 100 } else { 200 })
}

/// The rounds of one rate.
#[derive(Default)]
struct AtRate {
    reached: Vec<f64>,
    /// Lookups a second of CPU time while zones change.
    looked_up: Vec<f64>,
    quiet: Vec<f64>,
    /// What is kept of the rate when nothing else runs, beside a core that computes as long, and beside one that copies.
    kept: [Vec<f64>; 3],
}

impl AtRate {
    fn measure(world: &World, rate: usize, rounds: usize, copying: &mut Copying) -> Self {
        let mut all = Self::default();
        for _ in 0..rounds {
            let quiet = world.look_up(&world.published(), slice());
            let (busy, made) = world.look_up_while_changing(
                slice(),
                rate / PROMOTIONS_PER_SECOND,
                PROMOTIONS_PER_SECOND,
            );
            let beside = |work: &mut (dyn FnMut() + Send)| {
                world.look_up_beside_work(slice(), PROMOTIONS_PER_SECOND, made.busy, work)
            };
            let computing = beside(&mut compute);
            let copied = beside(&mut || copying.copy());
            all.reached.push(made.per_second);
            all.looked_up.push(busy.per_cpu_second * BATCH as f64);
            all.quiet.push(quiet.per_cpu_second * BATCH as f64);
            for (kept, baseline) in all.kept.iter_mut().zip([&quiet, &computing, &copied]) {
                kept.push(busy.per_cpu_second / baseline.per_cpu_second);
            }
        }
        all
    }
}

/// The highest rate yet at which lookups kept their rate: by the middle of what was measured, and by both ends of the interval
/// that has the true middle in it.
#[derive(Copy, Clone, Default)]
struct Best {
    rate: f64,
    kept: f64,
    interval: (f64, f64),
}

impl Best {
    fn hear(&mut self, rate: f64, kept: Spread) {
        let (least, most) = kept.interval.unwrap_or((kept.median, kept.median));
        if kept.median >= KEPT {
            (self.rate, self.kept) = (rate, kept.median);
        }
        if least >= KEPT {
            self.interval.0 = rate;
        }
        if most >= KEPT {
            self.interval.1 = rate;
        }
    }
}

/// The highest of the rates at which lookups keep nine tenths of their rate: of the quiet one, and of that beside a core that
/// computes within registers for as long as the promotions take.
///
/// The second is what the promotions themselves cost the lookups: two processors of a virtual machine may be one core of the
/// host, which gives each less as soon as both run, whatever they do.
pub(crate) fn changes_per_second() {
    let world = World::new();
    let mut copying = Copying::new();
    // Many short rounds: the machine's own swings are as large as what is looked for.
    let rounds = measure::rounds();
    let mut best = [Best::default(); 2];
    let (mut quiet_rates, mut rates) = (Vec::new(), Vec::new());
    for rate in RATES {
        let all = AtRate::measure(&world, rate, rounds, &mut copying);
        let reached = Spread::new(all.reached.into_iter());
        rates.push((
            reached.median,
            Spread::new(all.looked_up.into_iter()).median,
        ));
        quiet_rates.extend(all.quiet);
        let kept = all.kept.map(|kept| Spread::new(kept.into_iter()));
        let [of_quiet, of_computing, of_copying] = kept.map(|kept| kept.median * 100.0);
        measure::say(&format!(
            "  {rate} changes/s asked for, {} made, lookups kept {of_quiet:.0} % of the quiet rate, {of_computing:.0} % of \
             that beside a core that computes, {of_copying:.0} % of that beside one that copies pages",
            measure::figure(reached.median),
        ));
        // One rate somewhat short may be the machine's doing: the next ones tell.
        if kept[0].median.max(kept[1].median) < KEPT - 0.2 || reached.median < 0.9 * rate as f64 {
            break;
        }
        for (best, kept) in best.iter_mut().zip(kept) {
            best.hear(reached.median, kept);
        }
    }
    if let Some(folder) = plot::folder() {
        let quiet = Spread::new(quiet_rates.into_iter()).median;
        draw_rates(rates, quiet).write(&folder);
    }
    let rows = [
        "zone changes/s with lookups kept ≥ 90 % of the quiet rate, 100 k zones",
        "zone changes/s with lookups kept ≥ 90 % of the rate beside a core that computes as long, 100 k zones",
    ];
    for (what, best) in rows.into_iter().zip(best) {
        Row {
            what,
            ours: format!("{} changes/s", measure::figure(best.rate)),
            baseline: format!("lookups kept {:.0} %", best.kept * 100.0),
            value: Spread {
                median: best.rate,
                interval: Some(best.interval),
            },
            target: Target::AtLeast(10_000.0, 50_000.0),
        }
        .report();
    }
}

/// Lookups against changes, beside the quiet rate and what of it must be kept.
fn draw_rates(rates: Vec<(f64, f64)>, quiet: f64) -> Chart<'static> {
    let (first, last) = (rates[0].0, rates[rates.len() - 1].0);
    let level = |name: &str, value: f64| Series {
        name: name.to_owned(),
        style: Style::Level,
        points: vec![(first, value), (last, value)],
    };
    Chart {
        name: "changes",
        title: "Lookups while zones change",
        below: "100 k zones of 64 vertices; one thread looks up, one promotes 100 times a second",
        x: Axis {
            label: "zone changes a second",
            scale: Scale::Log,
            tick: plot::count,
        },
        y: Axis {
            label: "lookups a second of CPU time",
            scale: Scale::Linear,
            tick: plot::count,
        },
        series: vec![
            Series::line("while zones change", rates),
            level("quiet", quiet),
            level("90 % of it", quiet * KEPT),
        ],
    }
}

/// The shares of batches by what they took, in bins of a tenth of a decade; and where p50, p99 and p99.9 are.
fn histogram(name: &str, times: &mut [f64]) -> Series {
    const BINS_PER_DECADE: f64 = 10.0;
    times.sort_by(f64::total_cmp);
    let bin = |time: f64| (time.log10() * BINS_PER_DECADE).floor();
    let edge = |bin: f64| 10_f64.powf(bin / BINS_PER_DECADE);
    let at = |per_mille: usize| plot::seconds(round(times[(times.len() - 1) * per_mille / 1_000]));
    let points = times
        .chunk_by(|a, b| bin(*a) == bin(*b))
        .flat_map(|part| {
            let share = part.len() as f64 / times.len() as f64;
            let bin = bin(part[0]);
            [(edge(bin), share), (edge(bin + 1.0), share)]
        })
        .collect();
    Series {
        name: format!(
            "{name}\np50 {}\np99 {}\np99.9 {}",
            at(500),
            at(990),
            at(999)
        ),
        style: Style::Steps,
        points,
    }
}

/// Two digits.
fn round(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor() - 1.0);
    (value / unit).round() * unit
}

fn draw_latencies(quiet: &mut [f64], busy: &mut [f64]) -> Chart<'static> {
    Chart {
        name: "latency",
        title: "What a batch of 256 lookups takes",
        below: "100 k zones of 64 vertices, by the wall clock, whatever else the machine does included",
        x: Axis {
            label: "time of a batch",
            scale: Scale::Log,
            tick: plot::seconds,
        },
        y: Axis {
            label: "share of the batches (bins of a tenth of a decade)",
            scale: Scale::Log,
            tick: plot::percent,
        },
        series: vec![
            histogram("quiet", quiet),
            histogram("1 k promotions/s", busy),
        ],
    }
}

/// p99 of batches while a thousand one-zone promotions are published a second ÷ while none is.
pub(crate) fn batch_latency() {
    let world = World::new();
    // A p99 takes more batches than a mean.
    let lasting = 2 * slice();
    let p99 = |Slice { mut times, .. }: Slice| {
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    };
    let mut promotions = Vec::new();
    let (mut all_busy, mut all_quiet) = (Vec::new(), Vec::new());
    let slices: Vec<(f64, f64)> = (0..measure::rounds())
        .map(|_| {
            let quiet = world.look_up(&world.published(), lasting);
            let (busy, made) = world.look_up_while_changing(lasting, 1, 1_000);
            promotions.push(made.promotions);
            all_quiet.extend_from_slice(&quiet.times);
            all_busy.extend_from_slice(&busy.times);
            (p99(busy), p99(quiet))
        })
        .collect();
    if let Some(folder) = plot::folder() {
        draw_latencies(&mut all_quiet, &mut all_busy).write(&folder);
    }
    let micros = |of: fn(&(f64, f64)) -> f64| {
        let middle = Spread::new(slices.iter().map(of)).median;
        format!("{} µs", measure::figure(middle * 1e6))
    };
    let rate = Spread::new(promotions.into_iter()).median;
    Row {
        what: "p99 batch latency with 1 k promotions/s ÷ none, 100 k zones, batches of 256",
        ours: format!(
            "{} at {} promotions/s",
            micros(|slice| slice.0),
            measure::figure(rate)
        ),
        baseline: micros(|slice| slice.1),
        value: Spread::new(slices.iter().map(|(busy, quiet)| busy / quiet)),
        target: Target::AtMost(1.25, 1.03),
    }
    .report();
}
