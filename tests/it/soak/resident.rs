//! What a process has in memory, as Linux says.

use std::path::PathBuf;

pub(super) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// The memory of one process.
pub(super) struct Resident {
    folder: PathBuf,
}

impl Resident {
    /// `self` or a process id.
    pub(super) fn of(process: &str) -> Self {
        Self {
            folder: PathBuf::from(format!("/proc/{process}")),
        }
    }

    fn read(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.folder.join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
        kib.map(|kib: u64| kib * 1_024).expect("Linux tells it")
    }

    pub(super) fn now(&self) -> u64 {
        self.read("VmRSS")
    }

    /// The most since it began or [`Self::reset_peak`].
    pub(super) fn peak(&self) -> u64 {
        self.read("VmHWM")
    }

    pub(super) fn reset_peak(&self) {
        std::fs::write(self.folder.join("clear_refs"), "5").expect("a process of ours");
    }
}

#[test]
fn what_is_allocated_and_touched_is_seen_and_the_peak_can_be_begun_anew() {
    let own = Resident::of("self");
    let before = own.now();
    let block = vec![1_u8; 64 << 20];
    assert!(own.now() >= before + (60 << 20), "{} {before}", own.now());
    drop(std::hint::black_box(block));
    let peak = own.peak();
    assert!(peak >= before + (60 << 20));
    own.reset_peak();
    // Other tests run beside this one.
    assert!(own.peak() < peak, "{} {peak}", own.peak());
}
