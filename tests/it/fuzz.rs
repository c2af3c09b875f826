//! The fuzz targets of `fuzz/` as plain tests: over the corpus, and over mutations of it for a bounded time.
//!
//! `RINGFENCE_FUZZ_SECONDS` is the time of each target (1, in `scripts/test` 5), `RINGFENCE_FUZZ_SEED` repeats a run. A
//! failure is shrunk to few edits and printed; the input then belongs into `fuzz/corpus`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use ringfence::clock::Clock;

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use targets::Target;

/// What the formats are made of: single bytes alone seldom meet it.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud83d",
    "\u{feff}",
    "\u{0}",
    "é",
    " ",
    "\n",
    "null",
    "true",
    "0",
    "-0",
    "-",
    ".5",
    "1e5",
    "1E-400",
    "1e400",
    "180",
    "-180",
    "360",
    "90.00000000000001",
    "9007199254740993",
    "18446744073709551616",
    "9999-12-31T23:59:59.999999999Z",
    "\"id\":",
    "\"ts\":",
    "\"lat\":",
    "\"lon\":",
    "\"zones\":",
    "\"zones_properties\":",
    "\"z\\u006fnes\":",
    "\"type\":",
    "\"Feature\"",
    "\"MultiPolygon\"",
    "\"properties\":",
    "\"deleted\":true",
    "\"radius_m\":",
    "[0,0],",
    "[-180,90],",
    "[1e-320,1],",
    "\"\"",
    "'''",
    "\"\"\"",
    "#",
    "=",
    "\n[gate]\n",
    "\n[kafka]\n",
    "{ env = \"SECRET\" }",
    "\"***\"",
    "1_000",
    "0x7f",
    "1979-05-27",
    "inf",
];

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Bytes of the same input again, elsewhere.
    Repeat {
        from: Index,
        count: usize,
        to: Index,
    },
    /// The rest becomes that of another input.
    Cross(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let word = prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec());
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        // A byte for one of its kind: digits stay digits, so that numbers become other numbers.
        2 => (at(), b'0'..=b'9').prop_map(|(at, byte)| Edit::Replace(at, byte)),
        4 => (at(), word).prop_map(|(at, word)| Edit::Insert(at, word)),
        2 => (at(), 1_usize..20).prop_map(|(at, count)| Edit::Remove(at, count)),
        2 => (at(), 1_usize..60, at()).prop_map(|(from, count, to)| Edit::Repeat { from, count, to }),
        1 => (at(), at()).prop_map(|(at, other)| Edit::Cross(at, other)),
    ]
}

fn apply(edit: &Edit, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let place = |at: &Index, len: usize| at.index(len + 1);
    let len = input.len();
    match edit {
        Edit::Replace(at, byte) => {
            if len > 0 {
                input[at.index(len)] = *byte;
            }
        }
        Edit::Insert(at, bytes) => {
            let at = place(at, len);
            input.splice(at..at, bytes.iter().copied());
        }
        Edit::Remove(at, count) => {
            let from = place(at, len);
            input.drain(from..(from + count).min(len));
        }
        Edit::Repeat { from, count, to } => {
            let from = place(from, len);
            let bytes = input[from..(from + count).min(len)].to_vec();
            let to = place(to, len);
            input.splice(to..to, bytes);
        }
        Edit::Cross(at, other) => {
            let other = &corpus[other.index(corpus.len())];
            input.truncate(place(at, len));
            input.extend_from_slice(&other[place(at, other.len())..]);
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "{} has a corpus", directory.display());
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn seed() -> u64 {
    let named = std::env::var("RINGFENCE_FUZZ_SEED").ok();
    let drawn = || Clock::wall().millis().unsigned_abs();
    named.map_or_else(drawn, |text| {
        text.parse().expect("RINGFENCE_FUZZ_SEED is a number")
    })
}

fn fuzz(name: &str) {
    let (_, target) = *targets::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let corpus = corpus(name);
    for input in &corpus {
        target(input);
    }
    let seconds = std::env::var("RINGFENCE_FUZZ_SECONDS").map_or(1, |text| text.parse().unwrap());
    let seed = seed();
    let tried = mutate(target, &corpus, seed, Duration::from_secs(seconds));
    println!(
        "{name}: {} of the corpus, {tried} mutations in {seconds} s, RINGFENCE_FUZZ_SEED={seed}",
        corpus.len()
    );
    assert!(tried > 0, "no mutation was tried");
}

/// Tries mutations until the time is over; gives how many.
fn mutate(target: Target, corpus: &[Vec<u8>], seed: u64, time: Duration) -> u64 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: 100,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut seeds = TestRunner::new_with_rng(config.clone(), rng);
    let strategy = (any::<Index>(), prop::collection::vec(edit(), 1..6));
    let mutated = |base: &Index, edits: &[Edit]| {
        let mut input = corpus[base.index(corpus.len())].clone();
        for edit in edits {
            apply(edit, &mut input, corpus);
        }
        input
    };
    let begun = Clock::mono();
    let tried = std::cell::Cell::new(0);
    while Clock::mono().since(begun) < time {
        // A runner runs once; the next one draws from the same seed.
        let mut runner = TestRunner::new_with_rng(config.clone(), seeds.new_rng());
        let outcome = runner.run(&strategy, |(base, edits)| {
            tried.set(tried.get() + 1);
            let input = mutated(&base, &edits);
            let judged = catch_unwind(AssertUnwindSafe(|| target(&input)));
            judged.map_err(|_| TestCaseError::fail("the target panicked (above)"))
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(_, (base, edits))) => {
                let input = mutated(&base, &edits);
                // Where a file of the corpus can be written as it is, so can this.
                panic!(
                    "RINGFENCE_FUZZ_SEED={seed}: the smallest input found: {}",
                    input.escape_ascii()
                );
            }
            Err(TestError::Abort(why)) => panic!("RINGFENCE_FUZZ_SEED={seed}: {why}"),
        }
    }
    tried.get()
}

#[test]
fn fs_45_telemetry_is_accepted_exactly_where_serde_json_and_the_plain_rules_accept_it() {
    fuzz("telemetry");
}

#[test]
fn every_byte_that_is_not_the_zones_is_kept_by_the_splice() {
    fuzz("splice");
}

#[test]
fn fs_46_an_accepted_zone_covers_its_own_interior_point_and_boundary() {
    fuzz("zone_change");
}

#[test]
fn an_accepted_configuration_is_read_back_from_what_is_shown_of_it() {
    fuzz("configuration");
}
