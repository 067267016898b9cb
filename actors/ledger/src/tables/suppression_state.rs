//! What the stage that holds alerts back reads, and what it leaves with the alerts.

use std::time::Duration;

use opspilot_kernel::{alert::Observation, ids::AlertId, silence::Silence, time::Timestamp};
use serde::{Deserialize, Serialize};

/// The silences that are not over, as they were read together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SilenceSet {
    /// Moves when a person changes what holds alerts back.
    pub rev: i64,
    /// By their end, the first one first.
    pub silences: Vec<Silence>,
}

/// Alerts that fire are looked at again, some at a time, whenever what holds them back begins or ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// What began or ended up to here was taken into account, or is being so.
    pub until: Timestamp,
    /// Names the configuration that was gone by.
    pub plan: String,
    /// The alert it has come to, by the id its detector speaks of it by, while it is under way.
    pub place: Option<AlertId>,
    /// An alert that holds others back began or ended since.
    pub again: bool,
}

/// An alert that fires and holds others back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inhibitor {
    /// It could be held back by the same rule, and so holds back only what could not hold it back.
    pub both: bool,
    /// The id its detector speaks of it by.
    pub claim: AlertId,
    /// Its line for people, as it began.
    pub title: String,
}

/// What an alert holds others back by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shield {
    /// What those must share with it.
    pub key: String,
    /// It could be held back by the same rule.
    pub both: bool,
}

/// What holding alerts back needs to know of an alert besides what everybody sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aside {
    /// By our clock, when it began, if it was held back then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// It is held back and belongs to no incident: what is needed to tell of it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What it holds others back by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shields: Vec<Shield>,
}

/// What is needed to tell of an alert that was held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What was observed last: a bounded sample.
    pub evidence: Vec<Observation>,
    /// It supports what others claim: alone it opens no incident.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supports: bool,
    /// What it may share with others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What it may share with storms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storms: Vec<String>,
    /// The same as the stage that found it has it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub grouping: serde_json::Value,
    /// How long after its resolution an incident of the same fingerprint is opened again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopen_within: Option<Duration>,
}
