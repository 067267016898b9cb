//! Follows log files.

mod config;
mod engine;
mod interpret;
mod lines;
mod open;
mod pattern;
mod reading;
mod survey;
mod tail;

pub use config::{Config, FileConfig, Multiline, StartAt};
