//! OpsPilot as one process: the command line, the wiring, and the HTTP API.
//!
//! Everything else lives in the crates under `actors/`. `actors/README.md` has the map.

pub mod cli;
pub mod config;
mod demo;
pub mod http;
pub mod plain;
mod replay;
mod service;
pub mod shutdown;
pub mod telemetry;
pub mod topology;
