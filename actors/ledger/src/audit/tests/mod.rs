//! What the checks of a log are worth: everything that can be done to one, done.

mod forged;
mod keys;
mod log;
mod recorded;
mod rig;
mod second;
mod signed;
mod tampered;
