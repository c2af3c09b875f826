use super::*;

fn sources(file: &str) -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("ringfence.toml");
    std::fs::write(&path, file).expect("the file is written");
    (
        directory,
        Sources {
            file: Some(path),
            ..Sources::default()
        },
    )
}

fn problems(file: &str) -> String {
    let (_directory, sources) = sources(file);
    load(&sources)
        .expect_err("a wrong configuration")
        .to_string()
}

#[test]
fn defaults_are_a_valid_configuration() {
    let loaded = load(&Sources::default()).expect("valid");
    assert_eq!(loaded.config.gate.max_wait, Duration::from_secs(5));
    assert_eq!(loaded.config.kafka.group_id(), "ringfence");
    assert!(
        loaded
            .settings
            .iter()
            .all(|setting| setting.origin == Origin::Default)
    );
    assert!(loaded.config.fields().is_ok());
}

#[test]
fn shipped_file_is_the_table_and_changes_nothing() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/ringfence.toml");
    if std::env::var_os("RINGFENCE_RENDER").is_some() {
        std::fs::write(path, render::file()).expect("the file is written");
    }
    let shipped = std::fs::read_to_string(path).expect("the shipped file");
    assert_eq!(
        shipped,
        render::file(),
        "after a change of the table: RINGFENCE_RENDER=1 cargo test shipped_file"
    );
    let (_directory, sources) = sources(&shipped);
    let loaded = load(&sources).expect("the shipped file is valid");
    let defaults = load(&Sources::default()).expect("valid");
    let values = |loaded: &Loaded| -> Vec<_> {
        loaded
            .settings
            .iter()
            .map(|setting| (setting.name.clone(), setting.value.clone()))
            .collect()
    };
    assert_eq!(values(&loaded), values(&defaults));
}

#[test]
fn later_sources_hold_over_earlier_ones_and_say_so() {
    let (_directory, mut sources) = sources(
        "[gate]\nmax_wait_ms = 1\nmax_ahead_ms = 2\n[kafka]\nbootstrap.servers = \"a:1\"\n",
    );
    sources.environment = vec![
        ("RINGFENCE__GATE__MAX_WAIT_MS".into(), "20".into()),
        (
            "RINGFENCE__ENRICHED__PROPERTIES".into(),
            "name, kind".into(),
        ),
        (
            "RINGFENCE__KAFKA__CONSUMER__FETCH_WAIT_MAX_MS".into(),
            "7".into(),
        ),
        ("UNRELATED".into(), "x".into()),
    ];
    sources.set = vec![
        "gate.max_wait_ms=3_000".into(),
        "gate.floor=2026-01-01T00:00:00Z".into(),
    ];
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.gate.max_wait, Duration::from_secs(3));
    assert_eq!(loaded.config.gate.max_ahead, Duration::from_millis(2));
    assert_eq!(loaded.config.enriched.properties, ["name", "kind"]);
    assert_eq!(loaded.config.kafka.bootstrap_servers(), "a:1");
    assert_eq!(
        loaded.config.kafka.consumer().get("fetch.wait.max.ms"),
        Some("7")
    );
    assert_eq!(
        loaded.config.kafka.producer().get("fetch.wait.max.ms"),
        None
    );
    assert_eq!(
        loaded.config.gate.floor,
        EventTime::parse_rfc3339("2026-01-01T00:00:00Z")
    );
    let origin = |name: &str| {
        loaded
            .settings
            .iter()
            .find(|setting| setting.name == name)
            .map(|setting| setting.origin.to_string())
    };
    assert_eq!(origin("gate.max_wait_ms").as_deref(), Some("--set"));
    assert!(origin("gate.max_ahead_ms").is_some_and(|origin| origin.ends_with("ringfence.toml:3")));
    assert_eq!(
        origin("enriched.properties").as_deref(),
        Some("environment RINGFENCE__ENRICHED__PROPERTIES")
    );
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = problems(
        "[gate]\nmax_wait_ms = \"5s\"\nmax_wate_ms = 1\n\n[kafka]\n\"enable.auto.commit\" = true\n",
    );
    assert!(
        text.contains(
            "`gate.max_wait_ms` must be a whole number of ms from 0 to 3600000, not the text \"5s\""
        ),
        "{text}"
    );
    assert!(
        text.contains("there is no key `gate.max_wate_ms`; the nearest is `gate.max_wait_ms`"),
        "{text}"
    );
    assert!(
        text.contains("`enable.auto.commit` is set by Ringfence itself"),
        "{text}"
    );
    assert!(
        text.contains("ringfence.toml:2)")
            && text.contains("ringfence.toml:3)")
            && text.contains("ringfence.toml:6)"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_between_keys_and_by_another_judge_is_reported_beside_the_rest() {
    let (_directory, sources) = sources(
        "[gate]\nmatch_from = 5\nmatch_until = 4\nfloor = \"x\"\nwrong = 1\n[kafka.consumer]\nfoo.bar = 1\n\
         [zones]\ntopic = \"telemetry\"\n[telemetry]\ntopic = \"\"\n",
    );
    let refused = |config: &Config| {
        assert_eq!(config.kafka.consumer().get("foo.bar"), Some("1"));
        vec![RefusedProperty {
            keys: vec!["kafka.consumer.foo.bar".to_owned()],
            message: "no such property".to_owned(),
        }]
    };
    let text = load_with(&sources, refused).unwrap_err().to_string();
    for (expected, line) in [
        ("`gate.match_from` (1970", 2),
        ("`gate.floor` must be", 4),
        ("there is no key `gate.wrong`", 5),
        ("`kafka.consumer.foo.bar`: no such property", 7),
        ("`telemetry.topic` must be", 11),
    ] {
        let said = text.lines().find(|said| said.contains(expected));
        let said = said.unwrap_or_else(|| panic!("no {expected:?} in {text}"));
        assert!(said.ends_with(&format!("ringfence.toml:{line})")), "{said}");
    }
    // What the topic would be without its wrong value clashes with nothing.
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn a_kafka_section_is_no_property_and_neither_is_what_has_no_name() {
    // Taken for properties of `[kafka]`, they may be shown as what no file can say.
    let text = problems(
        "[kafka]\n\"consumer\" = 1\n\"zones.\" = 2\n\"\" = 3\n\"producer.linger.ms\" = 5\n",
    );
    for expected in [
        "`kafka.consumer` is a section",
        "`kafka.zones.` names no property",
        "`kafka.` names no property",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn a_fault_between_the_fields_stands_where_one_of_them_was_written() {
    let text = problems(
        "[telemetry]\nid = \"/p\"\nlat = \"/q\"\nlon = \"/q\"\n[enriched]\nfield = \"p\"\n",
    );
    assert!(!text.contains("default"), "{text}");
    let line = |what: &str| {
        text.lines()
            .find(|line| line.contains(what))
            .unwrap_or(&text)
    };
    assert!(
        line("`telemetry.lat` and `telemetry.lon`").ends_with("toml:3)"),
        "{text}"
    );
    assert!(
        line("`enriched.field` would overwrite").ends_with("toml:6)"),
        "{text}"
    );
}

#[test]
fn an_empty_section_that_does_not_exist_is_refused_too() {
    for (file, expected) in [
        (
            "[gatee]\n",
            "there is no section `[gatee]`; the nearest is `[gate]`",
        ),
        ("[kafka.producr]\n", "the nearest is `[kafka.producer]`"),
        ("[gate.floor]\n", "there is no section `[gate.floor]`"),
        ("[gate]\nfloor = {}\n", "there is no section `[gate.floor]`"),
    ] {
        let text = problems(file);
        assert!(text.contains(expected), "{file}: {text}");
    }
    let (_directory, sources) = sources("[gate]\n[kafka]\n[kafka.zones]\n");
    assert!(load(&sources).is_ok());
}

#[test]
fn a_reference_is_one_and_what_it_names_has_an_end() {
    for (reference, expected) in [
        (
            "{ file = \"/x\", env = \"X\" }",
            "either `env` or `file`, not both",
        ),
        (
            "{ file = \"/dev/zero\" }",
            "it is longer than 1048576 bytes",
        ),
        ("{ file = \"/nowhere\" }", "cannot read `/nowhere`"),
    ] {
        let text = problems(&format!("[kafka]\n\"group.id\" = {reference}\n"));
        assert!(
            text.contains("`kafka.group.id`") && text.contains(expected),
            "{text}"
        );
    }
    let endless = Sources {
        file: Some("/dev/zero".into()),
        ..Sources::default()
    };
    let text = load(&endless).unwrap_err().to_string();
    assert!(text.contains("longer than"), "{text}");
}

#[test]
fn key_in_a_wrong_section_is_found() {
    assert!(
        problems("[delivery]\nmax_wait_ms = 1\n").contains("the nearest is `gate.max_wait_ms`")
    );
    assert!(problems("[gates]\nmax_wait_ms = 1\n").contains("the nearest is `gate.max_wait_ms`"));
}

#[test]
fn what_is_not_toml_says_where() {
    let text = problems("[gate]\nmax_wait_ms = \n");
    assert!(
        text.contains("not TOML") && text.contains("ringfence.toml:2)"),
        "{text}"
    );
    assert!(problems("workers = 3\n").contains("outside any section"));
}

#[test]
fn references_are_followed_and_their_values_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("password");
    std::fs::write(&secret, "hunter2\n").expect("written");
    let (_kept, mut sources) = sources(&format!(
        "[kafka]\n\"sasl.password\" = {{ file = {secret:?} }}\n\"sasl.username\" = {{ env = \"WHO\" }}\n[workers]\ncount = {{ env = \"N\" }}\n"
    ));
    sources.environment = vec![("WHO".into(), "me".into()), ("N".into(), "3".into())];
    let loaded = load(&sources).expect("valid");
    assert_eq!(
        loaded.config.kafka.common().get("sasl.password"),
        Some("hunter2")
    );
    assert_eq!(loaded.config.workers.count, 3);
    let shown = format!("{}{:?}", render::effective(&loaded.settings), loaded.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    sources.environment = vec![("N".into(), "many".into())];
    let text = load(&sources).expect_err("wrong").to_string();
    assert!(
        text.contains("`WHO` is not set") && text.contains("`workers.count` must be"),
        "{text}"
    );
    assert!(!text.contains("many"), "{text}");
}

#[test]
fn values_that_cannot_stand_together_are_refused() {
    for (file, expected) in [
        (
            "[gate]\nmatch = \"latest\"\nmatch_from = 0\n",
            "`gate.match_from` clamps",
        ),
        (
            "[gate]\nmatch_from = 2026-01-02T00:00:00Z\nmatch_until = \"2026-01-01T00:00:00Z\"\n",
            "must not be after",
        ),
        (
            "[gate]\nsettle_margin_ms = 3000\n",
            "must not be above `gate.settle_margin_max_ms` (2000)",
        ),
        (
            "[gate]\nfloor = 2\nmatch_until = 1\n",
            "every event would be late",
        ),
        (
            "[zones]\ntopic = \"telemetry\"\n",
            "`zones.topic` and `telemetry.topic` are both `telemetry`",
        ),
        (
            "[enriched]\nfield = \"ts\"\n",
            "would overwrite what `telemetry.time` reads",
        ),
        ("[telemetry]\nlat = \"/lon\"\n", "read the same member"),
        (
            "[shutdown]\ndrain_timeout_ms = 10001\n",
            "must not be above `session.timeout.ms` (10000)",
        ),
        (
            "[kafka.consumer]\nsession.timeout.ms = 6000\n",
            "`shutdown.drain_timeout_ms` (10000) must not be above `session.timeout.ms` (6000)",
        ),
        (
            "[kafka.producer]\nbootstrap.servers = \"x:1\"\n",
            "set it in `[kafka]`",
        ),
        ("[kafka]\nbootstrap.servers = \"\"\n", "must name a broker"),
    ] {
        let text = problems(file);
        assert!(text.contains(expected), "{file}: {text}");
    }
}

#[test]
fn schema_knows_every_key() {
    let schema = render::schema();
    for key in KEYS {
        let known = &schema["properties"][key.section()]["properties"][key.leaf()];
        assert!(known.is_object(), "{}", key.name);
    }
}

#[test]
fn names_in_the_table_are_unique_and_sections_stand_together() {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KEYS.len());
    let mut sections: Vec<_> = keys::sections().collect();
    let count = sections.len();
    sections.sort_unstable();
    sections.dedup();
    assert_eq!(sections.len(), count);
}
