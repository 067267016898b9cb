//! What `action.safe` can be told: what can be done, and what proposes it.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Size, closest},
    signal::Severity,
};
use opspilot_safety::{ActionTemplate, Catalogue, Facts, Policy, RenderError, render};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

use super::rules::Fill;

/// The most rules there may be.
const MOST_RULES: usize = 1000;
/// The longest name of a rule, in bytes.
const LONGEST_ID: usize = 128;
/// The longest reasoning, in characters.
const LONGEST_REASONING: usize = 2000;
const RUNS: std::ops::RangeInclusive<u32> = 1..=256;
const FILE_SIZE: std::ops::RangeInclusive<u64> = 1..=(1 << 46);
const MEMORY: std::ops::RangeInclusive<u64> = (64 << 20)..=(1 << 46);

/// Configuration of `action.safe`: the catalogue of what can be done about an incident, and the rules that propose it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SafeConfig {
    /// What can be done: programs with typed parameters. Nothing else ever runs.
    pub actions: Vec<ActionTemplate>,
    /// What proposes an action by itself when an incident is opened or becomes worse. A rule only ever proposes: people
    /// decide. Each proposes once for an incident; how often all of them may is said by `policy.proposals`.
    pub rules: Vec<Rule>,
    /// How many programs run at the same time, from 1 to 256. While so many run, an execution is refused with
    /// `target_busy`, and its token stays good: nothing waits to start by itself later.
    #[schemars(range(min = 1, max = 256))]
    pub max_runs: u32,
    /// Bounds on each process of a run.
    pub limits: Limits,
}

/// Bounds on each process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Its address space, at least 64MiB. Some programs reserve far more than they use.
    pub memory: Size,
    /// Each file that it writes.
    pub file_size: Size,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: Size(8 << 30), file_size: Size(1 << 30) }
    }
}

impl Default for SafeConfig {
    fn default() -> SafeConfig {
        SafeConfig { actions: Vec::new(), rules: Vec::new(), max_runs: 16, limits: Limits::default() }
    }
}

/// What proposes an action by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, which stands in proposals and in the audit log; that of its action if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The action of the catalogue that it proposes.
    pub action: String,
    /// Which incidents it is for: all that is said must hold, and something must be said.
    #[serde(rename = "match")]
    pub matches: Match,
    /// What the action's parameters are filled with: a value as it stands, `$labels.name` for a label of the incident, or
    /// `$source`. A `$` at the beginning is written `$$`.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Why, for whoever decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

impl Rule {
    /// Its name.
    pub fn name(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.action)
    }
}

/// Which incidents a rule is for. Of several values one must be the incident's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Its severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Either<Severity>>,
    /// Who observed its founding alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Either<String>>,
    /// The rule of its founding alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Either<String>>,
    /// Labels of its founding alert, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Either<String>>,
}

/// One value, or a list of values.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Either<T> {
    /// One.
    One(T),
    /// Several.
    Several(Vec<T>),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Either<T>, D::Error> {
        // by hand, so that it is said what is wrong with the value and not only that something is
        match Value::deserialize(deserializer)? {
            Value::Array(values) => {
                let values = values.into_iter().map(|value| T::deserialize(value).map_err(D::Error::custom));
                values.collect::<Result<_, _>>().map(Either::Several)
            }
            value => T::deserialize(value).map(Either::One).map_err(D::Error::custom),
        }
    }
}

impl<T: PartialEq> Either<T> {
    /// All of them.
    pub(crate) fn values(&self) -> &[T] {
        match self {
            Either::One(value) => std::slice::from_ref(value),
            Either::Several(values) => values,
        }
    }
}

impl ModuleConfig for SafeConfig {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let catalogue = match Catalogue::new(self.actions.clone()) {
            Ok(catalogue) => Some(catalogue),
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| problem.under("/actions")));
                None
            }
        };
        if !RUNS.contains(&self.max_runs) {
            problems.push(Problem::at("/max_runs", "is from 1 to 256"));
        }
        if !MEMORY.contains(&self.limits.memory.0) {
            problems.push(Problem::at("/limits/memory", "is from 64MiB to 64TiB"));
        }
        if !FILE_SIZE.contains(&self.limits.file_size.0) {
            problems.push(Problem::at("/limits/file_size", "is from 1B to 64TiB"));
        }
        if self.rules.len() > MOST_RULES {
            problems.push(Problem::at("/rules", format!("at most {MOST_RULES} rules")));
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let mut found = Vec::new();
            name(rule, &mut names, &mut found);
            self.action(rule, catalogue.as_ref(), &mut found);
            conditions(rule, &mut found);
            if rule.reasoning.as_ref().is_some_and(|text| text.chars().count() > LONGEST_REASONING) {
                found.push(Problem::at("/reasoning", format!("has at most {LONGEST_REASONING} characters")));
            }
            problems.extend(found.into_iter().map(|problem| problem.under(&format!("/rules/{index}"))));
        }
        problems
    }
}

impl SafeConfig {
    fn action(&self, rule: &Rule, catalogue: Option<&Catalogue>, problems: &mut Vec<Problem>) {
        if !self.actions.iter().any(|action| action.id == rule.action) {
            let mut problem = Problem::at("/action", format!("there is no action '{}' in actions", rule.action));
            if let Some(meant) = closest(&rule.action, self.actions.iter().map(|action| action.id.as_str())) {
                problem = problem.suggest(meant);
            }
            return problems.push(problem);
        }
        let mut literal = BTreeMap::new();
        for (name, value) in &rule.params {
            match Fill::read(value) {
                Ok(Fill::Literal(value)) => drop(literal.insert(name.clone(), value)),
                Ok(Fill::Label(_) | Fill::Source) => {}
                Err(why) => problems.push(Problem::at(format!("/params/{name}"), why)),
            }
        }
        let Some(action) = catalogue.and_then(|catalogue| catalogue.get(&rule.action)) else { return };
        // what is filled from an incident can be judged only when there is one
        let later = |name: &str| rule.params.contains_key(name) && !literal.contains_key(name);
        let known = &action.template().params;
        let mut given = literal.clone();
        given.extend(rule.params.iter().filter(|(name, _)| !known.contains_key(*name)).map(|(name, value)| (name.clone(), value.clone())));
        if let Err(RenderError::Params(bad)) = render(action, &given, &Policy::default(), &Facts::default()) {
            for bad in bad.into_iter().filter(|bad| !known.contains_key(&bad.name) || !later(&bad.name)) {
                let is_missing = !rule.params.contains_key(&bad.name);
                let pointer = if is_missing { "/params".to_owned() } else { format!("/params/{}", bad.name) };
                let mut problem = Problem::at(pointer, format!("{} {}", bad.name, bad.why));
                if let Some(meant) = bad.suggestion {
                    problem = problem.suggest(meant);
                }
                problems.push(problem);
            }
        }
    }
}

fn name<'a>(rule: &'a Rule, names: &mut BTreeSet<&'a str>, problems: &mut Vec<Problem>) {
    let name = rule.name();
    if name.trim().is_empty() || name.len() > LONGEST_ID || name.chars().any(char::is_control) {
        problems.push(Problem::at("/id", format!("an id has 1 to {LONGEST_ID} bytes and no control characters")));
    } else if !names.insert(name) {
        problems.push(Problem::at("/id", format!("there is another rule '{name}'; give this one an id of its own")));
    }
}

fn conditions(rule: &Rule, problems: &mut Vec<Problem>) {
    let Match { severity, source, rule: of, labels } = &rule.matches;
    if severity.is_none() && source.is_none() && of.is_none() && labels.is_empty() {
        let text = "say which incidents: by severity, source, rule or labels; a rule for every incident is surely not meant";
        problems.push(Problem::at("/match", text));
    }
    let empty = [
        ("/match/severity", severity.as_ref().is_some_and(|severity| severity.values().is_empty())),
        ("/match/source", source.as_ref().is_some_and(|source| source.values().is_empty())),
        ("/match/rule", of.as_ref().is_some_and(|of| of.values().is_empty())),
    ];
    for (pointer, _) in empty.into_iter().filter(|(_, is_empty)| *is_empty) {
        problems.push(Problem::at(pointer, "an empty list matches nothing"));
    }
    for (name, _) in labels.iter().filter(|(_, wanted)| wanted.values().is_empty()) {
        problems.push(Problem::at(format!("/match/labels/{name}"), "an empty list matches nothing"));
    }
}
