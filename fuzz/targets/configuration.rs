//! A configuration file: every fault is a problem with its place, and what is accepted, rendered as `config show`
//! renders it, is read back as the same.

use std::cell::RefCell;
use std::io::{Seek, Write};

use ringfence::config::{ConfigError, Loaded, Setting, Sources, load, render};

/// What the environment variable `SECRET` holds.
const SECRET: &str = "of-the-environment";

thread_local! {
    static FILE: RefCell<tempfile::NamedTempFile> = RefCell::new(tempfile::NamedTempFile::new().unwrap());
}

fn read(text: &[u8]) -> Result<Loaded, ConfigError> {
    FILE.with_borrow_mut(|file| {
        file.rewind().unwrap();
        file.as_file().set_len(0).unwrap();
        file.write_all(text).unwrap();
        load(&Sources {
            file: Some(file.path().to_owned()),
            environment: vec![("SECRET".to_owned(), SECRET.to_owned())],
            set: Vec::new(),
        })
    })
}

/// The target.
pub fn run(data: &[u8]) {
    if std::str::from_utf8(data).is_ok_and(names_a_file) {
        return;
    }
    let loaded = match read(data) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!error.problems.is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    assert!(std::str::from_utf8(data).is_ok(), "TOML is UTF-8");
    let shown = render::effective(&loaded.settings);
    let is_told = |setting: &Setting| {
        setting.name.starts_with("kafka.") && setting.value.to_string().contains(SECRET)
    };
    assert!(
        !loaded.settings.iter().any(is_told),
        "what a reference in `[kafka]` named is a secret"
    );
    let again = read(shown.as_bytes()).unwrap_or_else(|error| panic!("{error}\nin\n{shown}"));
    let values = |loaded: &Loaded| -> Vec<_> {
        let setting = |setting: &Setting| (setting.name.clone(), setting.value.clone());
        loaded.settings.iter().map(setting).collect()
    };
    assert_eq!(values(&loaded), values(&again), "in\n{shown}");
    let is_redacted = loaded.settings.iter().any(|setting| setting.value == "***");
    if !is_redacted {
        assert_eq!(
            format!("{:?}", loaded.config),
            format!("{:?}", again.config)
        );
    }
}

/// `{ file = "…" }` could name a device that never ends: such inputs are left out.
fn names_a_file(text: &str) -> bool {
    fn is_named(value: &toml::Value) -> bool {
        match value {
            toml::Value::Table(table) => table.contains_key("file") || table.values().any(is_named),
            toml::Value::Array(items) => items.iter().any(is_named),
            _ => false,
        }
    }
    toml::from_str::<toml::Table>(text).is_ok_and(|table| is_named(&table.into()))
}
