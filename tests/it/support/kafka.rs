//! A real Apache Kafka for tests: the one in `$RINGFENCE_TEST_KAFKA`, else the one that `scripts/kafka up` gives (started
//! if need be, and left running for the next time).

use std::process::Command;
use std::sync::LazyLock;

static BOOTSTRAP: LazyLock<String> = LazyLock::new(|| {
    if let Ok(bootstrap) = std::env::var("RINGFENCE_TEST_KAFKA") {
        return bootstrap;
    }
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka"))
        .arg("up")
        .output()
        .expect("scripts/kafka starts");
    assert!(
        output.status.success(),
        "scripts/kafka up: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("an address is text")
        .trim()
        .to_owned()
});

/// The brokers to connect to.
pub(crate) fn bootstrap() -> &'static str {
    &BOOTSTRAP
}

/// The address in `RINGFENCE_TEST_KAFKA`; without it a test of a real Kafka says so and passes, as `scripts/test` always
/// sets it.
pub(crate) fn address() -> Option<String> {
    let address = std::env::var("RINGFENCE_TEST_KAFKA").ok();
    if address.is_none() {
        println!("RINGFENCE_TEST_KAFKA is not set: not run");
    }
    address
}
