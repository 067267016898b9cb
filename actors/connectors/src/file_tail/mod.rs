//! Follows log files.

mod config;
mod interpret;
mod lines;
mod open;
mod pattern;

pub use config::{Config, FileConfig, Multiline, StartAt};
