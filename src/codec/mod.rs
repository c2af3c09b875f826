//! Bytes to values and back: telemetry fields, zone changes (GeoJSON), the spliced output value, headers.
//!
//! Everything here is pure and never panics on input; what is wrong with a record comes back as a
//! [`Rejection`](crate::rejection::Rejection). JSON is judged as strictly as `serde_json` does (UTF-8, 128 levels,
//! numbers that a 64-bit float holds), in one pass and without building a tree.

pub mod crs;
pub mod features;
pub mod geojson;
pub mod headers;
pub mod instant;
pub mod json;
pub mod pointer;
mod shape;
pub mod splice;
pub mod telemetry;
pub mod zone_change;
