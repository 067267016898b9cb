//! What the checks of a log are worth: everything that can be done to one, done.

mod forged;
mod live;
mod log;
mod second;
