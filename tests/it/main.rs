//! Stories over the real binary and real sockets, and the house rules.
#![allow(unreachable_pub, reason = "the harness is one module of one binary")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on should stop and say where"
)]

mod actions;
mod approvals;
mod audit;
mod browser;
mod cli;
mod clock;
mod common;
mod crash;
mod demo;
mod determinism;
mod durability;
#[cfg(feature = "failpoints")]
mod faults;
mod feed;
mod heartbeat;
mod keys;
mod life;
mod modules;
mod newcomer;
mod notify;
mod outside_tools;
mod overload;
mod reload;
mod replay;
mod roles;
mod silences;
mod storage;
mod story;
mod tail;
mod tidy;
mod together;
mod topology;
