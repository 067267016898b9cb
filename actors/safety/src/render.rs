//! Rendering: an action and its parameters become a plan, its bytes, its digest, and what people are shown. Pure.

use std::collections::BTreeMap;

use opspilot_kernel::{
    approval::Preview,
    config::closest,
    plan::{Plan, PlanDigest, PlanFile},
};
use serde_json::Value;

use crate::{
    catalogue::{Action, Piece},
    facts::{Facts, UNSET},
    param::Filled,
    policy::Policy,
};

/// The most bytes that all arguments of a plan may have together.
const ARGV_BYTES: usize = 64 << 10;

/// A plan that can be proposed.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// What would run.
    pub plan: Plan,
    /// The plan as it is stored, shown, hashed and run.
    pub bytes: Vec<u8>,
    /// SHA-256 over these bytes.
    pub digest: PlanDigest,
    /// What people are shown besides.
    pub preview: Preview,
    /// One line for people.
    pub title: String,
    /// The parameters, as they were understood.
    pub params: BTreeMap<String, Value>,
}

/// One parameter that does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadParam {
    /// Which.
    pub name: String,
    /// What is wrong with it; what was sent is not repeated.
    pub why: String,
    /// What was most likely meant.
    pub suggestion: Option<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// Parameters are missing, unknown or not acceptable.
    #[error("the parameters do not fit the action: {}", in_words(.0))]
    Params(Vec<BadParam>),
    /// What it runs cannot be run.
    #[error("{path} cannot be run: {why}")]
    File {
        /// The program or its script.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It would be too long.
    #[error("the command line would be longer than {ARGV_BYTES} bytes")]
    TooLong,
    /// It cannot be hashed.
    #[error("the plan cannot be hashed")]
    NotCanonical,
}

fn in_words(bad: &[BadParam]) -> String {
    bad.iter().map(|bad| format!("{} {}", bad.name, bad.why)).collect::<Vec<_>>().join("; ")
}

/// Renders `action` with `params` under `policy`, where `facts` hold.
pub fn render(action: &Action, params: &BTreeMap<String, Value>, policy: &Policy, facts: &Facts) -> Result<Rendered, RenderError> {
    let filled = fill(action, params)?;
    let template = action.template();
    let put = |piece: &Piece| match piece.param.as_ref().and_then(|name| filled.get(name)) {
        Some(value) => format!("{}{}", piece.fixed, value.text),
        None => piece.fixed.clone(),
    };
    let argv: Vec<String> = action.argv.iter().map(put).collect();
    if argv.iter().map(|arg| arg.len() + 1).sum::<usize>() > ARGV_BYTES {
        return Err(RenderError::TooLong);
    }
    let mut targets: Vec<String> = match &action.targets {
        Some(targets) => targets.iter().map(put).collect(),
        None => {
            let named = filled.iter().filter(|(name, _)| action.params.get(*name).is_some_and(|param| param.names_a_target()));
            named.map(|(_, value)| value.text.clone()).collect()
        }
    };
    if targets.is_empty() {
        targets.push(template.id.clone());
    }
    targets.sort_unstable();
    targets.dedup();
    let mut files = Vec::new();
    for path in &action.files {
        let found = facts.files.get(path).cloned().unwrap_or_else(|| Err("nobody looked at it".to_owned()));
        let sha256 = found.map_err(|why| RenderError::File { path: path.clone(), why })?;
        files.push(PlanFile { path: path.clone(), sha256 });
    }
    let value = |name: &String| facts.env.get(name).cloned().unwrap_or_else(|| UNSET.to_owned());
    let plan = Plan {
        v: 1,
        executor: template.executor,
        action: template.id.clone(),
        template: action.digest().to_owned(),
        policy: policy.digest(template.risk),
        argv,
        files,
        env: template.env.clone(),
        env_values: template.env.iter().map(|name| (name.clone(), value(name))).collect(),
        cwd: template.cwd.clone(),
        uid: template.run_as,
        timeout_secs: template.timeout.0.as_secs(),
        idle_timeout_secs: template.idle_timeout.map(|span| span.0.as_secs()),
        output_bytes: template.output.0,
        limits: facts.limits,
        targets,
    };
    let bytes = plan.bytes().map_err(|_| RenderError::NotCanonical)?;
    let preview = Preview { text: command_line(&plan.argv), targets: u64::try_from(plan.targets.len()).unwrap_or(u64::MAX) };
    let title = titled(&template.title, &filled);
    let params = filled.into_iter().map(|(name, value)| (name, value.value)).collect();
    Ok(Rendered { digest: PlanDigest::of(&bytes), plan, bytes, preview, title, params })
}

fn fill(action: &Action, params: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Filled>, RenderError> {
    let mut bad = Vec::new();
    let mut filled = BTreeMap::new();
    for name in params.keys().filter(|name| !action.params.contains_key(*name)) {
        let suggestion = closest(name, action.params.keys().map(String::as_str)).map(str::to_owned);
        let name: String = name.chars().filter(|c| !crate::param::is_hidden(*c)).take(64).collect();
        bad.push(BadParam { name, why: "is no parameter of this action".to_owned(), suggestion });
    }
    for (name, param) in &action.params {
        let value = match params.get(name) {
            None => Err("is missing".to_owned()),
            Some(value) => param.fill(value),
        };
        match value {
            Ok(value) => drop(filled.insert(name.clone(), value)),
            Err(why) => bad.push(BadParam { name: name.clone(), why, suggestion: None }),
        }
    }
    if bad.is_empty() { Ok(filled) } else { Err(RenderError::Params(bad)) }
}

/// The title with values in its slots. In one pass: a value that looks like a slot is none.
fn titled(title: &str, filled: &BTreeMap<String, Filled>) -> String {
    let mut out = String::new();
    let mut rest = title;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        match behind.split_once('}').and_then(|(name, after)| filled.get(name).map(|value| (value, after))) {
            Some((value, after)) => {
                out.push_str(&shown(&value.text));
                rest = after;
            }
            None => {
                out.push('{');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// A value within a title: long ones are cut.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST - 1).chain(['…']).collect() }
}

/// The arguments as one line that can be read in one way: plain words as they are, everything else in quotes, and what
/// could be taken for something else by its code.
pub fn command_line(argv: &[String]) -> String {
    argv.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ")
}

fn quoted(arg: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !arg.is_empty() && arg.bytes().all(is_plain) {
        return arg.to_owned();
    }
    if arg.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return format!("'{}'", arg.replace('\'', r"'\''"));
    }
    // beyond ASCII many letters look like others
    let mut out = String::from("$'");
    for c in arg.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('\'');
    out
}
