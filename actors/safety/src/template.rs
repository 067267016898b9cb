//! Actions as the configuration writes them: a program, its arguments with slots, and a type for each slot.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{Size, Span},
    plan::{Executor, Risk},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One action of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionTemplate {
    /// Its name: 1 to 64 lower-case letters, digits and `-`.
    pub id: String,
    /// One line for people; `{name}` stands for a parameter.
    pub title: String,
    /// What it is for, in more words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How much harm it can do; it decides how many people must agree.
    pub risk: Risk,
    /// What carries it out.
    #[serde(default = "process")]
    pub executor: Executor,
    /// The program by its absolute path, and its arguments. An argument is fixed, is a parameter (`{name}`), or is a
    /// fixed text with a parameter behind it (`--unit={name}`). There is no shell.
    pub argv: Vec<String>,
    /// What may stand in the slots.
    #[serde(default)]
    pub params: BTreeMap<String, ParamSpec>,
    /// Variables of the service's own environment that the program gets, by name.
    #[serde(default)]
    pub env: Vec<String>,
    /// The directory it runs in.
    #[serde(default = "root")]
    pub cwd: String,
    /// The user id it runs as; the service's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<u32>,
    /// How long it may take.
    #[serde(default = "half_a_minute")]
    pub timeout: Span,
    /// How long it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// How much of each of its two outputs is kept.
    #[serde(default = "one_mib")]
    pub output: Size,
    /// What it acts on, with slots as in `argv`; two runs never act on the same at once. By default the values of its
    /// parameters that name something, or the action itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
    /// Allows a program that runs other programs or code (a shell, `env`, `ssh` …). Only for the tier `destructive`.
    #[serde(default)]
    pub unsafe_interpreter: bool,
}

fn process() -> Executor {
    Executor::Process
}

fn root() -> String {
    "/".to_owned()
}

fn half_a_minute() -> Span {
    Span::seconds(30)
}

fn one_mib() -> Size {
    Size::mib(1)
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// One of `values`.
    Enum,
    /// A whole number from `min` to `max`.
    Int,
    /// A host name (RFC 1123).
    Hostname,
    /// The name of a systemd unit.
    UnitName,
    /// The name of a Kubernetes object.
    K8sName,
    /// An absolute path under the directory `beneath`.
    AbsPath,
    /// A length of time such as `30s`, from `min` to `max` seconds.
    Duration,
    /// A text that `pattern` matches as a whole.
    Text,
}

/// One parameter of an action. Which keys are needed depends on the type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamSpec {
    /// What it may be.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of an `enum`: what there is to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Of an `int` (needed) or a `duration` (in seconds): the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Of an `int` (needed) or a `duration` (in seconds): the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// Of an `abs_path`: the directory it must lie under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<String>,
    /// Of a `text`: a regular expression that must match all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Of a `text`: the most characters, at most 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Of a `text`: whether it may begin with `-`, and so be taken for an option.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leading_dash: bool,
}

impl ParamSpec {
    /// A parameter of this type with nothing else said.
    pub fn of(kind: ParamType) -> ParamSpec {
        ParamSpec {
            kind,
            description: None,
            values: Vec::new(),
            min: None,
            max: None,
            beneath: None,
            pattern: None,
            max_length: None,
            leading_dash: false,
        }
    }
}
