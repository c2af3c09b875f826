//! Ringfence adds to every telemetry event the ids of all geofence zones that cover its position, as of the event's
//! own time.

pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod enriched;
pub mod gate;
pub mod geometry;
pub mod http;
pub mod index;
pub mod kafka;
pub mod metrics;
pub mod partition;
pub mod pipeline;
pub mod rejection;
pub mod run;
pub mod shutdown;
pub mod simulate;
pub mod telemetry;
pub mod time;
pub mod verify;
pub mod zone;
