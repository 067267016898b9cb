//! The few kinds of error, mapped to a status in exactly one place.

/// What a caller can do about an error; each crate's error type names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is malformed (HTTP 400).
    Malformed,
    /// The request is well formed but its content is not acceptable (422).
    Invalid,
    /// Nobody is logged in, or the credential is not valid (401).
    Unauthenticated,
    /// The caller may not do this (403).
    Forbidden,
    /// There is no such thing (404).
    NotFound,
    /// The state of the thing does not allow it (409).
    Conflict,
    /// It was valid once and is not any more (410).
    Expired,
    /// A bound is reached; try again after a while (429).
    Busy,
    /// Something this needs is not there just now (503).
    Unavailable,
    /// Our fault (500). Details are logged, never returned.
    Internal,
}
