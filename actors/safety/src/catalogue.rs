//! The catalogue: every action there is, checked once and never changed; a new configuration is a new catalogue.

use std::collections::BTreeMap;

use opspilot_kernel::{
    canonical::canonical,
    config::{Problem, closest},
    plan::{PlanDigest, Risk},
};

use crate::{
    interpreters,
    param::{Param, is_clean_path, is_hidden},
    template::ActionTemplate,
};

/// The most actions, arguments and parameters there may be.
const MOST_ACTIONS: usize = 1000;
const MOST_ARGS: usize = 128;
const MOST_PARAMS: usize = 32;
/// The longest fixed argument, in bytes.
const LONGEST_ARG: usize = 8192;
/// The longest title, in characters.
const LONGEST_TITLE: usize = 200;
const TIMEOUT_SECS: std::ops::RangeInclusive<u64> = 1..=86_400;
const OUTPUT_BYTES: std::ops::RangeInclusive<u64> = 1024..=(16 << 20);

/// A piece of an argument: fixed text, or fixed text with a parameter behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) fixed: String,
    pub(crate) param: Option<String>,
}

impl Piece {
    /// Reads `fixed`, `{name}` or `fixed{name}`; anything else with a brace in it is refused.
    fn read(text: &str) -> Option<Piece> {
        match text.split_once('{') {
            None if text.contains('}') => None,
            None => Some(Piece { fixed: text.to_owned(), param: None }),
            Some((fixed, rest)) => {
                let name = rest.strip_suffix('}')?;
                (is_param_name(name) && !fixed.contains('}')).then(|| Piece { fixed: fixed.to_owned(), param: Some(name.to_owned()) })
            }
        }
    }
}

fn is_param_name(name: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(ok) && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
}

fn is_action_id(id: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(ok) && !id.starts_with('-')
}

fn is_variable(name: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=128).contains(&name.len()) && name.bytes().all(ok) && !name.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
}

/// Variables that decide which code a program runs, and ours.
fn is_dangerous_variable(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "SHELL",
        "SHELLOPTS",
        "BASHOPTS",
        "PS4",
        "PROMPT_COMMAND",
        "CDPATH",
        "GLOBIGNORE",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "MANPAGER",
        "LESSOPEN",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_ASKPASS",
        "SSH_ASKPASS",
        "SSH_AUTH_SOCK",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYOPT",
        "RUBYLIB",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "JAVA_TOOL_OPTIONS",
        "CLASSPATH",
        "GCONV_PATH",
        "LOCPATH",
        "TERMINFO",
        "HOSTALIASES",
        "RES_OPTIONS",
        "TMPDIR",
    ];
    NAMES.contains(&name)
        || name.starts_with("LD_")
        || name.starts_with("DYLD_")
        || name.starts_with("OPSPILOT")
        || name.starts_with("GLIBC_")
}

/// One action, checked and made ready.
#[derive(Debug, Clone)]
pub struct Action {
    template: ActionTemplate,
    digest: String,
    pub(crate) argv: Vec<Piece>,
    /// The files that it runs, by their fixed paths.
    pub(crate) files: Vec<String>,
    pub(crate) targets: Option<Vec<Piece>>,
    pub(crate) params: BTreeMap<String, Param>,
}

impl Action {
    /// As the configuration writes it.
    pub fn template(&self) -> &ActionTemplate {
        &self.template
    }

    /// SHA-256 over its definition, `sha256:…`: an edited definition is another action.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Checks a definition; pointers start at the action.
    pub fn new(template: ActionTemplate) -> Result<Action, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut params = BTreeMap::new();
        if template.params.len() > MOST_PARAMS {
            problems.push(Problem::at("/params", format!("at most {MOST_PARAMS} parameters")));
        }
        for (name, spec) in &template.params {
            let pointer = format!("/params/{name}");
            if !is_param_name(name) {
                problems.push(Problem::at(&pointer, "a parameter is named with lower-case letters, digits and _"));
            }
            match Param::compile(spec) {
                Ok(param) => drop(params.insert(name.clone(), param)),
                Err(found) => problems.extend(found.into_iter().map(|problem| problem.under(&pointer))),
            }
        }
        let argv = pieces(&template.argv, "/argv", &template, &mut problems);
        let targets = template.targets.as_deref().map(|targets| pieces(targets, "/targets", &template, &mut problems));
        head(&template, &mut problems);
        program(&template, &mut problems);
        unused(&template, &argv, &mut problems);
        bounds(&template, &mut problems);
        let bytes = serde_json::to_value(&template).ok().and_then(|value| canonical(&value).ok());
        match bytes {
            Some(bytes) if problems.is_empty() => {
                let files = interpreters::files(&template.argv, |arg| !arg.contains('{'));
                Ok(Action { digest: PlanDigest::of(&bytes).to_string(), template, argv, files, targets, params })
            }
            Some(_) => Err(problems),
            None => {
                problems.push(Problem::at("", "a number in it is too large to be hashed"));
                Err(problems)
            }
        }
    }
}

fn pieces(texts: &[String], pointer: &str, template: &ActionTemplate, problems: &mut Vec<Problem>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if texts.len() > MOST_ARGS {
        problems.push(Problem::at(pointer, format!("at most {MOST_ARGS} of them")));
    }
    for (index, text) in texts.iter().enumerate() {
        let at = format!("{pointer}/{index}");
        if text.len() > LONGEST_ARG || text.chars().any(is_hidden) {
            problems.push(Problem::at(at, format!("has at most {LONGEST_ARG} bytes, and no control or invisible characters")));
            continue;
        }
        let Some(piece) = Piece::read(text) else {
            let message = "is fixed, or a parameter as a whole, or a fixed text with a parameter at its end: `{name}`, `--flag={name}`";
            problems.push(Problem::at(at, message));
            continue;
        };
        if let Some(name) = piece.param.as_deref().filter(|name| !template.params.contains_key(*name)) {
            let mut problem = Problem::at(at, format!("the parameter {name} is not among params"));
            if let Some(meant) = closest(name, template.params.keys().map(String::as_str)) {
                problem = problem.suggest(meant);
            }
            problems.push(problem);
        }
        pieces.push(piece);
    }
    pieces
}

fn head(template: &ActionTemplate, problems: &mut Vec<Problem>) {
    if !is_action_id(&template.id) {
        problems.push(Problem::at("/id", "an action is named with 1 to 64 lower-case letters, digits and -"));
    }
    let title = &template.title;
    if title.trim().is_empty() || title.chars().count() > LONGEST_TITLE || title.chars().any(is_hidden) {
        problems.push(Problem::at("/title", format!("a title has 1 to {LONGEST_TITLE} characters that can be seen")));
    }
    for name in slots(title) {
        if !template.params.contains_key(name) {
            problems.push(Problem::at("/title", format!("the parameter {name} is not among params")));
        }
    }
}

/// The names in braces of a title.
pub(crate) fn slots(title: &str) -> impl Iterator<Item = &str> {
    title.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).filter(|name| is_param_name(name))
}

fn program(template: &ActionTemplate, problems: &mut Vec<Problem>) {
    let Some(program) = template.argv.first() else {
        problems.push(Problem::at("/argv", "name the program to run"));
        return;
    };
    if program.contains('{') || !is_clean_path(program) || program == "/" {
        problems.push(Problem::at("/argv/0", "the program is named by its absolute path, without a parameter in it"));
        return;
    }
    let danger = interpreters::danger(&template.argv, |arg| !arg.contains('{'));
    match danger {
        Some(_) if template.unsafe_interpreter && template.risk == Risk::Destructive => {}
        Some(_) if template.unsafe_interpreter => {
            problems.push(Problem::at("/risk", "an action with unsafe_interpreter has the risk destructive").suggest("destructive"));
        }
        Some(why) => {
            let message = format!("{why}; name a program of its own, or say `unsafe_interpreter: true` with `risk: destructive`");
            problems.push(Problem::at("/argv/0", message));
        }
        None => {}
    }
}

fn unused(template: &ActionTemplate, argv: &[Piece], problems: &mut Vec<Problem>) {
    for name in template.params.keys() {
        if !argv.iter().any(|piece| piece.param.as_deref() == Some(name)) {
            problems.push(Problem::at(format!("/params/{name}"), "stands in no argument, so it would change nothing"));
        }
    }
}

fn bounds(template: &ActionTemplate, problems: &mut Vec<Problem>) {
    if !is_clean_path(&template.cwd) {
        problems.push(Problem::at("/cwd", "is an absolute path, without . or .. in it and without a slash at its end"));
    }
    for (index, name) in template.env.iter().enumerate() {
        if !is_variable(name) {
            problems.push(Problem::at(format!("/env/{index}"), "a variable is named with upper-case letters, digits and _"));
        } else if is_dangerous_variable(name) {
            problems.push(Problem::at(format!("/env/{index}"), "this variable decides what a program runs, so it is never handed on"));
        }
    }
    let seconds = [("/timeout", Some(template.timeout)), ("/idle_timeout", template.idle_timeout)];
    for (pointer, span) in seconds {
        let Some(span) = span else { continue };
        if !TIMEOUT_SECS.contains(&span.0.as_secs()) || span.0.subsec_nanos() != 0 {
            problems.push(Problem::at(pointer, "is whole seconds, from 1s to 1d"));
        }
    }
    if !OUTPUT_BYTES.contains(&template.output.0) {
        problems.push(Problem::at("/output", "is from 1KiB to 16MiB"));
    }
    if template.targets.as_ref().is_some_and(Vec::is_empty) {
        problems.push(Problem::at("/targets", "names at least one target, or is left out"));
    }
}

/// Every action there is, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    actions: BTreeMap<String, Action>,
}

impl Catalogue {
    /// Checks all of them; says everything that is wrong, with pointers from the top of the list.
    pub fn new(templates: Vec<ActionTemplate>) -> Result<Catalogue, Vec<Problem>> {
        let mut actions = BTreeMap::new();
        let mut problems = Vec::new();
        if templates.len() > MOST_ACTIONS {
            problems.push(Problem::at("", format!("at most {MOST_ACTIONS} actions")));
        }
        for (index, template) in templates.into_iter().enumerate() {
            let pointer = format!("/{index}");
            let id = template.id.clone();
            match Action::new(template) {
                Ok(action) => {
                    if actions.insert(id.clone(), action).is_some() {
                        problems.push(Problem::at(format!("{pointer}/id"), format!("there is another action {id}")));
                    }
                }
                Err(found) => problems.extend(found.into_iter().map(|problem| problem.under(&pointer))),
            }
        }
        if problems.is_empty() { Ok(Catalogue { actions }) } else { Err(problems) }
    }

    /// The action of this name.
    pub fn get(&self, id: &str) -> Option<&Action> {
        self.actions.get(id)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// The name that was most likely meant.
    pub fn closest(&self, id: &str) -> Option<&str> {
        closest(id, self.actions.keys().map(String::as_str))
    }
}
