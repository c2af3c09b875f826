//! What the tests of this binary share.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test of whole processes uses its part"
)]
pub(crate) mod daemon;
pub(crate) mod edge;
pub(crate) mod in_process;
pub(crate) mod kafka;
pub(crate) mod log;
pub(crate) mod seeds;
pub(crate) mod stage;
pub(crate) mod tamper;
pub(crate) mod worker;
pub(crate) mod world;
pub(crate) mod zones;
