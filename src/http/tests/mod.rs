//! The API over real sockets: a server on a free port over a ledger in a temporary directory.

#![allow(clippy::as_conversions, reason = "tests")]

mod accounts;
mod approvals;
mod authz;
mod dashboard;
mod framing;
mod hostile;
mod idempotency;
mod incident_store;
mod incidents;
mod ingest;
mod live;
mod operations;
mod rates;
mod secrets;
mod sessions;
mod support;
mod topology;
