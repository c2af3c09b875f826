//! Rules that no compiler keeps: the arrows between the layers, words that are reserved, how long files and functions
//! may be, and that the README's tables are those of the code. Each failure names the file and what to do instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod faults;

/// A module of `src/` and what of the crate it may use. The order is that of the layers: arrows point down only.
const LAYERS: &[(&str, &[&str])] = &[
    ("fetch", &[]),
    ("time", &[]),
    ("partition", &[]),
    ("rejection", &[]),
    ("geometry", &["fetch", "rejection"]),
    (
        "zone",
        &["geometry", "partition", "rejection", "telemetry", "time"],
    ),
    ("telemetry", &["partition", "rejection", "time"]),
    ("codec", VOCABULARY),
    (
        "enriched",
        &["codec", "partition", "rejection", "telemetry", "time"],
    ),
    ("index", VOCABULARY),
    (
        "gate",
        &[
            "index",
            "partition",
            "rejection",
            "time",
            "zone",
            "geometry",
            "telemetry",
        ],
    ),
    (
        "pipeline",
        &[
            "codec",
            "gate",
            "index",
            "enriched",
            "partition",
            "rejection",
            "time",
            "zone",
            "geometry",
            "telemetry",
        ],
    ),
    // The witness shares no matching and no gate code with the daemon: what it shared, it could not catch. Reading a
    // zone record (and so which ones are rejected) is shared; finding, timing and covering are its own.
    (
        "verify",
        &[
            "codec",
            "geometry",
            "partition",
            "rejection",
            "simulate",
            "telemetry",
            "time",
            "zone",
        ],
    ),
    (
        "simulate",
        &["partition", "rejection", "telemetry", "time", "codec"],
    ),
];

const VOCABULARY: &[&str] = &[
    "fetch",
    "geometry",
    "partition",
    "rejection",
    "telemetry",
    "time",
    "zone",
];

/// A crate and the only modules that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka"]),
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("clap", &["cli"]),
    ("toml", &["config"]),
    ("indicatif", &["cli"]),
    ("metrics_exporter_prometheus", &["metrics"]),
];

/// Words with another meaning here, or none, each with what to write instead and where it is right all the same.
const BANNED: &[(&str, &str, &[&str])] = &[
    ("FIXME", "mend it, or open an issue", &[]),
    ("todo!", "a thing that does nothing yet must not exist", &[]),
    (
        "unimplemented!",
        "a thing that does nothing yet must not exist",
        &[],
    ),
    (
        "high_watermark",
        "`log_end_offset`: a watermark is event time only",
        &[],
    ),
    ("SystemTime::now", "`clock::Clock`", &["clock"]),
    ("Instant::now", "`clock::Clock`", &["clock"]),
    ("thread::sleep", "wait on an event with a time-out", &[]),
    (
        "#![deny(warnings)]",
        "warnings are denied in `scripts/test` only",
        &[],
    ),
];

const FILE_LINES_MAX: usize = 500;
/// Files that were longer when the rule came, with what they may have until they are split.
const LONGER: &[(&str, usize)] = &[("kafka/worker.rs", 520), ("verify/audit.rs", 520)];
const FUNCTION_LINES_MAX: usize = 70;
/// Likewise functions, by file and name: all of them are one table or one list of independent checks.
const LONGER_FUNCTIONS: &[(&str, &str, usize)] = &[
    ("cli/zones/import.rs", "run", 75),
    ("config/mod.rs", "config", 93),
    ("run/startup.rs", "workers_plan", 75),
    ("verify/report.rs", "fmt", 75),
];
const HEAD_LINES_MAX: usize = 12;

struct Source {
    path: PathBuf,
    /// The module directly below the crate: `gate` for `src/gate/engine.rs`.
    module: String,
    /// Without its tests and without comments.
    code: Vec<(usize, String)>,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the project") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    files.sort();
    assert!(files.len() > 10, "the sources were found");
    // A module whose whole file is tests is declared so by its parent: `#[cfg(test)] mod tests;`.
    files.retain(|path| path.file_name().is_none_or(|name| name != "tests.rs"));
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let inside = path.strip_prefix(root().join("src")).expect("below src");
            let module = inside
                .iter()
                .next()
                .expect("a name")
                .to_string_lossy()
                .replace(".rs", "");
            let until_tests = text
                .split("\n#[cfg(test)]\nmod ")
                .next()
                .unwrap_or_default()
                .to_owned();
            let code = until_tests
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
                .map(|(at, line)| (at + 1, line.to_owned()))
                .collect();
            Source {
                path: inside.to_owned(),
                module,
                code,
                text,
            }
        })
        .collect()
}

/// The words right after each `prefix` in a line: `crate::gate` gives `gate`, `crate::{time::X, zone}` both.
fn named_after(line: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(
                list.split([',', '}'])
                    .map(|item| word(item.trim()))
                    .filter(|name| !name.is_empty()),
            ),
            None => names.push(word(rest)),
        }
    }
    names
}

fn fail_with(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn arrows_between_the_layers_point_down() {
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some(below) = allowed.get(source.module.as_str()) else {
            continue;
        };
        for (at, line) in &source.code {
            for name in named_after(line, "crate::") {
                // A macro of the crate or an item of lib.rs has no file of its own.
                let is_module = root().join("src").join(&name).is_dir()
                    || root().join(format!("src/{name}.rs")).is_file();
                if is_module && name != source.module && !below.contains(&name.as_str()) {
                    faults.push(format!(
                        "src/{}:{at}: `{}` may not use `{name}`",
                        source.path.display(),
                        source.module
                    ));
                }
            }
            if source.module == "verify" && line.contains("Area") {
                faults.push(format!(
                    "src/{}:{at}: the witness covers by itself, not by `Area`",
                    source.path.display()
                ));
            }
            for outside in [
                "tokio",
                "rdkafka",
                "std::net",
                "std::fs",
                "std::thread",
                "crossbeam_channel",
            ] {
                let named = line.contains(&format!("{outside}::"));
                if named && !(source.module == "verify" && outside == "std::fs") {
                    faults.push(format!(
                        "src/{}:{at}: `{}` is pure, it may not use `{outside}`",
                        source.path.display(),
                        source.module
                    ));
                }
            }
        }
    }
    fail_with(faults);
}

#[test]
fn external_crates_stay_in_their_homes() {
    let mut faults = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            if homes.contains(&source.module.as_str()) {
                continue;
            }
            for (at, line) in &source.code {
                let used = line.match_indices(&format!("{name}::")).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'))
                });
                if used {
                    faults.push(format!(
                        "src/{}:{at}: `{name}` lives in `{}` only",
                        source.path.display(),
                        homes.join("`, `")
                    ));
                }
            }
        }
    }
    fail_with(faults);
}

#[test]
fn reserved_words_are_not_used() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, instead, homes) in BANNED {
            if homes.contains(&source.module.as_str()) {
                continue;
            }
            for (at, line) in source.text.lines().enumerate() {
                if line.contains(word) {
                    faults.push(format!(
                        "src/{}:{}: `{word}`: {instead}",
                        source.path.display(),
                        at + 1
                    ));
                }
            }
        }
        let may_be_unsafe = [Path::new("kafka/ffi.rs"), Path::new("fetch.rs")]
            .contains(&&*source.path)
            || source.path.starts_with("kafka/ffi");
        for (at, line) in &source.code {
            if !may_be_unsafe
                && (line.contains("unsafe {")
                    || line.contains("unsafe fn")
                    || line.contains("unsafe impl"))
            {
                faults.push(format!(
                    "src/{}:{at}: `unsafe` stands in src/kafka/ffi.rs, below it, and in src/fetch.rs only",
                    source.path.display()
                ));
            }
        }
    }
    fail_with(faults);
}

#[test]
fn files_and_functions_stay_short_and_say_what_they_are() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines = source
            .code
            .iter()
            .filter(|(_, line)| !line.trim().is_empty())
            .count();
        let longer = LONGER
            .iter()
            .find(|(path, _)| Path::new(path) == source.path);
        if lines > longer.map_or(FILE_LINES_MAX, |(_, lines)| *lines) {
            faults.push(format!(
                "src/{}: {lines} lines of code, at most {FILE_LINES_MAX}: split it",
                source.path.display()
            ));
        }
        let head = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        // lib.rs shows the picture, the layers and the invariants.
        if head == 0 || (head > HEAD_LINES_MAX && source.path != Path::new("lib.rs")) {
            faults.push(format!(
                "src/{}: its head has {head} lines, 1 to {HEAD_LINES_MAX} say what it is for",
                source.path.display()
            ));
        }
        // rustfmt puts the end of a function where its start stands.
        let mut open: Option<(usize, usize, String)> = None;
        for (at, line) in &source.code {
            let indent = line.len() - line.trim_start().len();
            let starts = [
                "fn ",
                "pub fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "async fn ",
                "pub async fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|start| line.trim_start().starts_with(start));
            match &open {
                None if starts && !line.trim_end().ends_with([';', '}']) => {
                    open = Some((*at, indent, line.trim().to_owned()))
                }
                Some((start, opened, name))
                    if indent == *opened && line.trim_start().starts_with('}') =>
                {
                    let longer = LONGER_FUNCTIONS.iter().find(|(path, function, _)| {
                        Path::new(path) == source.path && name.contains(&format!("fn {function}("))
                    });
                    let most = longer.map_or(FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
                    if at - start > most {
                        faults.push(format!(
                            "src/{}:{start}: {} lines, at most {most}: `{name}`",
                            source.path.display(),
                            at - start
                        ));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    fail_with(faults);
}

/// The table between the two marks in the README; with RINGFENCE_RENDER set, it is written there.
fn readme_has(mark: &str, table: &str) {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (begin, end) = (
        format!("<!-- {mark}: rendered -->\n"),
        format!("<!-- {mark}: end -->"),
    );
    let (before, rest) = readme
        .split_once(&begin)
        .unwrap_or_else(|| panic!("README.md has no `{begin}`"));
    let (now, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("README.md has no `{end}`"));
    if std::env::var_os("RINGFENCE_RENDER").is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}"))
            .expect("README.md is written");
    } else {
        assert_eq!(
            now, table,
            "README.md differs from the code: RINGFENCE_RENDER=1 cargo test --test it readme"
        );
    }
}

#[test]
fn readme_tables_are_those_of_the_code() {
    readme_has("configuration", &ringfence::config::render::readme_table());
    readme_has("metrics", &ringfence::metrics::readme_table());
}

#[test]
fn no_registry_or_secret_stands_in_the_scripts() {
    let scripts = fs::read_dir(root().join("scripts")).expect("there are scripts");
    let scripts = scripts.map(|entry| entry.expect("it can be listed").path());
    let others = [".ci/run", "docker-compose.yml", "Dockerfile"].map(|name| root().join(name));
    for path in scripts.chain(others) {
        let name = path.display();
        let text = fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        for word in [
            "repo.maven",
            "repo1.maven",
            "crates.io",
            "password",
            "token=",
        ] {
            assert!(!text.contains(word), "{name} names `{word}`");
        }
    }
}

#[test]
fn every_invariant_is_cited_by_number_in_code_and_in_tests() {
    let mut files = Vec::new();
    rust_files(&root().join("tests/it"), &mut files);
    let tests: String = files
        .iter()
        .filter(|path| !path.ends_with("tidy.rs"))
        .map(|path| fs::read_to_string(path).expect("UTF-8"))
        .collect();
    let code: String = sources()
        .into_iter()
        .filter(|source| source.path != Path::new("lib.rs"))
        .map(|source| source.text)
        .collect();
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .map(str::to_owned)
            .collect()
    };
    let (in_tests, in_code) = (words(&tests), words(&code));
    for number in 1..=16 {
        let name = format!("I{number}");
        assert!(in_code.contains(&name), "{name} is nowhere in src");
        assert!(in_tests.contains(&name), "{name} is nowhere in tests/it");
    }
}

#[test]
fn every_metric_is_recorded_somewhere() {
    let declared = fs::read_to_string(root().join("src/metrics.rs")).expect("src/metrics.rs");
    let others: String = sources()
        .into_iter()
        .filter(|source| source.module != "metrics")
        .map(|source| source.text)
        .collect();
    let mut constants = 0;
    for constant in declared
        .lines()
        .filter_map(|line| line.trim().split_once(" = \""))
        .map(|(name, _)| name)
    {
        if !constant
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            || constant == "BUILD_INFO"
        {
            continue;
        }
        constants += 1;
        assert!(
            others.contains(&format!("metrics::{constant}")),
            "`{constant}` measures nothing: record it or remove it"
        );
    }
    assert!(
        constants + 1 >= ringfence::metrics::METRICS.len(),
        "{constants} constants were found"
    );
}
