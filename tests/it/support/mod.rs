//! What the tests of this binary share.

pub(crate) mod log;
pub(crate) mod worker;
pub(crate) mod world;
pub(crate) mod zones;
