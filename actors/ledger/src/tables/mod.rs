//! One file for each table: the only SQL there is. Files add operations to [`Tx`](crate::Tx) (writing)
//! and [`Reader`](crate::Reader) (reading).

pub(crate) mod alert_log;
pub(crate) mod alerts;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod claims;
pub(crate) mod cursors;
pub(crate) mod dead_letters;
pub(crate) mod decisions;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod explanations;
pub(crate) mod idempotency;
pub(crate) mod incidents;
pub(crate) mod incidents_course;
pub(crate) mod incidents_list;
pub(crate) mod incidents_merge;
pub(crate) mod incidents_people;
pub(crate) mod incidents_pipeline;
pub(crate) mod incidents_record;
pub(crate) mod incidents_rows;
pub(crate) mod incidents_search;
pub(crate) mod incidents_split;
#[cfg(test)]
mod incidents_split_tests;
pub(crate) mod incidents_state;
pub(crate) mod incidents_stats;
#[cfg(test)]
mod incidents_store_tests;
#[cfg(test)]
mod incidents_tests;
pub(crate) mod incidents_words;
pub(crate) mod keys;
pub(crate) mod kill_switch;
pub(crate) mod meta;
pub(crate) mod outbox;
pub(crate) mod over;
pub(crate) mod reloads;
pub(crate) mod sessions;
pub(crate) mod shelf;
pub(crate) mod signals;
pub(crate) mod silences;
pub(crate) mod suppression;
pub(crate) mod suppression_state;
pub(crate) mod ticks;
pub(crate) mod timeline;
pub(crate) mod topology;
pub(crate) mod users;
