//! The rules and their configuration.
