//! The fault scenarios FS-01 to FS-82, each with the tests that show it or the reason why there is none: rendered to
//! `tests/FAULTS.md`. A test belongs to the rows that its name has (`fs_41_…`); others are named here and must exist.

use std::collections::BTreeSet;

use super::*;

struct Row {
    number: u8,
    what: &'static str,
    /// Tests without the number in their name.
    also: &'static [&'static str],
    /// What is not shown, or why nothing is.
    missing: &'static str,
}

const fn row(
    number: u8,
    what: &'static str,
    also: &'static [&'static str],
    missing: &'static str,
) -> Row {
    Row {
        number,
        what,
        also,
        missing,
    }
}

const OPERATIONS: &str = "comes with the operations issue";
const CHAOS: &str = "cut, slow and stalled connections: `scripts/torture`, through its proxies, with the audit beside it";

/// By section: rebalance, watermarks, transactions, bad data, topology, operations.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(1, "paused partition lost and regained", &[], ""),
    row(2, "partition assigned while all are paused", &[], ""),
    row(3, "pause of a partition just revoked", &[], "on the real client: it answers such a call with nothing to see; what it is told is asserted at every turn"),
    row(4, "resume of a running partition, pause twice", &["a_long_stall_pauses_once_and_resumes_at_half"], ""),
    row(5, "backpressure longer than max.poll.interval", &[], ""),
    row(6, "worker blocked beyond max.poll.interval", &["probes_tell_what_the_source_says"], "that `/livez` turns red of it takes 60 s: shown is the age of the beat that it looks at"),
    row(7, "acknowledgement after the revoke", &[], ""),
    row(8, "revoke and assign of one partition cross", &[], ""),
    row(9, "revoke that drains in time", &[], ""),
    row(10, "revoke that cannot drain", &[], ""),
    row(11, "partition lost", &[], ""),
    row(12, "one of several partitions revoked", &[], ""),
    row(13, "rebalance within a transaction", &[], ""),
    row(14, "commit during a cooperative rebalance", &["failed_commits_are_repeated", "a_kill_and_a_stop_of_three_processes_lose_reorder_and_spoil_nothing"], ""),
    row(15, "many members start together", &["a_kill_and_a_stop_of_three_processes_lose_reorder_and_spoil_nothing"], ""),
    row(16, "record of a partition that is not owned", &[], ""),
    row(17, "zone partition idle for hours", &["silent_zone_partitions_make_nothing_unsettled", "events_are_enriched_with_a_zone_partition_that_never_had_a_record", "a_minute_of_silence_and_partitions_without_any_record_make_nothing_unsettled"], ""),
    row(18, "zone partition quiet and behind its end", &["a_slow_leader_delays_the_proofs_of_its_own_partitions_only", "core_keeps_its_invariants_and_the_jigsaw_under_every_seed"], ""),
    row(19, "partition paused, idle clock running", &[], ""),
    row(20, "telemetry paused, waiting for zones", &[], ""),
    row(21, "all zone partitions idle", &[], ""),
    row(22, "no zone partition", &[], ""),
    row(23, "record stamped a day ahead", &[], ""),
    row(24, "device of the year 2003", &[], ""),
    row(25, "stored points among live ones", &["every_row_of_the_table_is_as_the_design_says"], ""),
    row(26, "host clock steps", &["core_keeps_its_invariants_and_the_jigsaw_under_every_seed"], ""),
    row(27, "zone record from the future", &[], ""),
    row(28, "the partition with the minimum goes", &[], "zone partitions are assigned by hand: none is revoked"),
    row(29, "promotion races a lookup", &["core_keeps_its_invariants_and_the_jigsaw_under_every_seed"], "no loom model: readers share one ArcSwap"),
    row(30, "build that panics or fails", &["a_build_that_fails_three_times_is_split_and_the_change_at_fault_refused"], "a build's budget comes with the breaker"),
    row(31, "kill -9 between produce and commit", &["a_kill_and_a_stop_of_three_processes_lose_reorder_and_spoil_nothing", "one_of_two_processes_killed_loses_nothing"], ""),
    row(32, "zombie after SIGSTOP", &[], ""),
    row(33, "slow transaction coordinator", &[], ""),
    row(34, "EndTxn response dropped", &[], ""),
    row(35, "abortable error", &[], ""),
    row(36, "error with no class", &["a_produce_error_that_stays_stops_the_worker_and_commits_nothing_past_it"], "of transactions: by the table of errors; no broker was found to send one"),
    row(37, "open transaction of a crashed predecessor", &[], ""),
    row(38, "two instances with one transactional.id", &[], ""),
    row(39, "empty transaction", &[], ""),
    row(40, "producer queue full", &["what_may_be_taken_never_passes_a_bound"], ""),
    row(41, "one record too large for the broker", &[], ""),
    row(42, "dead letter larger than its record", &[], ""),
    row(43, "dead-letter topic missing, unauthorised or slow", &["missing_topics_are_named", "a_failed_delivery_stops_the_worker_and_is_not_committed_past"], "fails closed only: there is no opting out"),
    row(44, "all records invalid", &[], ""),
    row(45, "poison telemetry", &["each_way_to_be_wrong_has_its_reason", "no_bytes_make_it_panic"], ""),
    row(46, "poison zone record, live and in the bootstrap", &["a_refused_change_ends_its_zone_after_the_compaction_lag"], ""),
    row(47, "null and empty values", &[], ""),
    row(48, "tombstones of unknown zones, twice, and a return", &[], ""),
    row(49, "hostile JSON", &["a_megabyte_of_odd_bytes_is_refused_on_both_topics_at_once"], ""),
    row(50, "coordinate that is no number", &[], ""),
    row(51, "invalid shapes", &["real_zones_are_judged_as_by_geos", "invalid_real_zones_can_be_repaired_and_keep_their_area"], ""),
    row(52, "shapes as bombs", &[], ""),
    row(53, "mixed dimensions", &[], ""),
    row(54, "holes, edges, vertices", &["small_zone_sets_have_no_wrong_answer", "large_zone_sets_have_no_wrong_answer"], ""),
    row(55, "antimeridian, poles, winding", &["three_ways_to_write_a_shape_over_the_antimeridian_agree", "antarctica_covers_the_pole_however_it_is_drawn"], ""),
    row(56, "ids of two types", &[], ""),
    row(57, "compaction during the bootstrap", &["a_replay_over_a_compacted_topic_with_restarts_writes_the_same_bytes"], ""),
    row(58, "open transaction during the bootstrap", &["an_open_transaction_is_named_as_the_cause", "core_keeps_its_invariants_and_the_jigsaw_under_every_seed"], ""),
    row(59, "zones topic without its first records, or any", &[], ""),
    row(60, "zone changes during the bootstrap", &["i14_nothing_is_published_before_every_partition_has_met_its_first_proof"], ""),
    row(61, "telemetry offset out of range", &[], ""),
    row(62, "log truncated by an unclean election", &["a_truncation_is_noticed_during_a_start_over_too"], "of telemetry on real brokers: not yet; its position is as the zones' one, and what it does when out of range is FS-61"),
    row(63, "topic deleted and made again", &[], ""),
    row(64, "more partitions", &["a_new_zones_partition_is_read_from_its_start", "start_latest_reads_what_comes_after_and_new_partitions_from_their_start", "a_new_partition_with_a_change_from_more_than_a_minute_ago_degrades_until_restart"], ""),
    row(65, "topic unknown at start", &["missing_topics_are_named"], ""),
    row(66, "brokers restart", &["produce_errors_that_pass_lose_nothing", "a_full_disk_of_a_broker_costs_time_and_no_record"], "ten minutes without brokers: a nightly test (`RINGFENCE_TEST_OUTAGE=600`)"),
    row(67, "slow broker, half-open connections", &["fs_05_fs_40_a_slow_broker_bounds_what_is_in_flight_and_the_member_stays", "fs_18_a_frozen_leader_of_zone_partitions_holds_the_gate_and_is_named_until_it_wakes"], CHAOS),
    row(68, "compressed bombs, batches that cannot be decoded", &[], OPERATIONS),
    row(69, "large backlog in bounded memory", &["what_may_be_taken_never_passes_a_bound", "resident_memory_stays_within_the_bounds_whatever_stands_still"], "under a cgroup limit: with the operations issue"),
    row(70, "sockets that send half a request", &["slow_client_is_cut_off_and_keeps_nobody_out"], ""),
    row(71, "slow and huge bodies, huge queries", &["slow_client_is_cut_off_and_keeps_nobody_out"], "there are no query endpoints yet, and no body is read"),
    row(72, "SIGTERM with a stuck client", &["told_to_stop_it_ends_although_a_client_stays", "a_drain_releases_what_is_held_and_waits_for_what_is_sent"], ""),
    row(73, "unbounded labels", &["names_follow_the_rules", "labels_that_are_not_declared_are_a_bug"], ""),
    row(74, "nothing scrapes for a day", &[], "12 million observations with the upkeep that every report does stand for the day"),
    row(75, "partition lost, its series", &[], ""),
    row(76, "secrets in any output", &["debug_shows_no_secret", "references_are_followed_and_their_values_not_shown"], ""),
    row(77, "odd text in a variable", &[], ""),
    row(78, "two replicas with one group.instance.id", &[], ""),
    row(79, "admin endpoint without token", &[], "there is no admin endpoint yet"),
    row(80, "liveness while Kafka is down", &[], "95 s, past what `/livez` allows a loop (60 s), in `exactly_once`; some seconds at least once; not an hour"),
    row(81, "breaker open, then the broker returns", &[], "shown of the breaker of the dead letters; that of the zones side (DESIGN 9) comes with its issue"),
    row(82, "degraded answers say so", &["a_degraded_snapshot_answers_at_once_and_says_so"], "alerts come with the operations issue"),
];

/// The names of all tests, in source and in this binary.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests/it"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("UTF-8");
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            let name = line.strip_prefix("async ").unwrap_or(line);
            if line == "#[test]" || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = name.strip_prefix("fn ")
                && std::mem::take(&mut is_test)
            {
                let end = name.find('(').unwrap_or(name.len());
                names.insert(name[..end].to_owned());
            }
        }
    }
    names
}

fn rendered(tests: &BTreeSet<String>) -> String {
    let mut out = String::from(
        "# Fault scenarios and their tests\n\nRendered from `tests/it/tidy/faults.rs`: `RINGFENCE_RENDER=1 cargo test \
         --test it faults`. A test whose name has a row's number (`fs_41_…`) is listed by itself.\n\n\
         | row | what happens | tests | not shown, and why |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        let number = format!("fs_{:02}_", row.number);
        let of_row = tests.iter().filter(|name| name.contains(&number));
        let names: Vec<String> = of_row
            .cloned()
            .chain(row.also.iter().map(ToString::to_string))
            .map(|name| format!("`{name}`"))
            .collect();
        out.push_str(&format!(
            "| FS-{:02} | {} | {} | {} |\n",
            row.number,
            row.what,
            names.join(", "),
            row.missing
        ));
    }
    out
}

#[test]
fn every_fault_row_has_tests_that_exist_or_a_reason() {
    let tests = tests();
    assert!(tests.len() > 200, "the tests were found");
    let mut faults = Vec::new();
    for (at, row) in ROWS.iter().enumerate() {
        assert_eq!(usize::from(row.number), at + 1, "no row is left out");
        for name in row.also {
            if !tests.contains(*name) {
                faults.push(format!("FS-{:02}: there is no test `{name}`", row.number));
            }
        }
        let number = format!("fs_{:02}_", row.number);
        let has_own = tests.iter().any(|name| name.contains(&number));
        if !has_own && row.also.is_empty() && row.missing.is_empty() {
            faults.push(format!("FS-{:02}: no test and no reason", row.number));
        }
    }
    assert_eq!(ROWS.len(), 82);
    let known = |number: &str| {
        number
            .parse()
            .is_ok_and(|number: usize| (1..=82).contains(&number))
    };
    for name in &tests {
        for (at, _) in name.match_indices("fs_") {
            let number = name[at + 3..].get(..2).unwrap_or_default();
            if (at == 0 || name[..at].ends_with('_')) && !known(number) {
                faults.push(format!("`{name}`: there is no such row"));
            }
        }
    }
    fail_with(faults);

    let path = root().join("tests/FAULTS.md");
    let table = rendered(&tests);
    if std::env::var_os("RINGFENCE_RENDER").is_some() {
        fs::write(&path, &table).expect("tests/FAULTS.md is written");
    }
    // Not `assert_eq`: nobody reads two tables of that length.
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == table,
        "tests/FAULTS.md differs from the tests: RINGFENCE_RENDER=1 cargo test --test it faults"
    );
}
