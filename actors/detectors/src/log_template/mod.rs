//! Finds what is new, bursts or stops among the statements that write log lines.

pub mod miner;
