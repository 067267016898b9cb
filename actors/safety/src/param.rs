//! Parameters: what may fill a slot. A value is taken as it stands or refused; nothing is escaped or cut.

use opspilot_kernel::config::{Problem, Span};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::template::{ParamSpec, ParamType};

/// The longest value of any type, in characters.
pub(crate) const LONGEST: usize = 4096;
/// The longest text unless the action says otherwise, in characters.
const TEXT_LENGTH: usize = 256;
/// The largest whole number that canonical JSON can hold.
const LARGEST: i64 = (1 << 53) - 1;
/// The most memory that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// A parameter that was checked and made ready.
#[derive(Debug, Clone)]
pub(crate) enum Param {
    Enum(Vec<String>),
    Int { min: i64, max: i64 },
    Hostname,
    UnitName,
    K8sName,
    AbsPath { beneath: String },
    Duration { min: i64, max: i64 },
    Text { pattern: Regex, max_length: usize, leading_dash: bool },
}

/// A value that fills a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filled {
    /// As it stands in the argument.
    pub(crate) text: String,
    /// As it is stored with the proposal.
    pub(crate) value: Value,
}

/// Whether a character can change how a line is shown without being seen.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl Param {
    /// Checks what the configuration says of a parameter; pointers start at the parameter.
    pub(crate) fn compile(spec: &ParamSpec) -> Result<Param, Vec<Problem>> {
        let mut problems = Vec::new();
        foreign_keys(spec, &mut problems);
        let made = match spec.kind {
            ParamType::Enum => {
                if spec.values.is_empty() {
                    problems.push(Problem::at("/values", "an enum needs values to choose from"));
                }
                for (index, value) in spec.values.iter().enumerate() {
                    if value.is_empty() || value.chars().any(is_hidden) || value.chars().count() > LONGEST {
                        problems.push(Problem::at(format!("/values/{index}"), "a value has 1 to 4096 characters that can be seen"));
                    }
                }
                Some(Param::Enum(spec.values.clone()))
            }
            ParamType::Int => match (spec.min, spec.max) {
                (Some(min), Some(max)) if min <= max && min >= -LARGEST && max <= LARGEST => Some(Param::Int { min, max }),
                (Some(_), Some(_)) => {
                    problems.push(Problem::at("/min", "min must not be above max, and both must be below 2^53"));
                    None
                }
                _ => {
                    problems.push(Problem::at("", "an int needs min and max"));
                    None
                }
            },
            ParamType::Hostname => Some(Param::Hostname),
            ParamType::UnitName => Some(Param::UnitName),
            ParamType::K8sName => Some(Param::K8sName),
            ParamType::AbsPath => match spec.beneath.as_deref() {
                Some(root) if root != "/" && is_clean_path(root) => Some(Param::AbsPath { beneath: root.to_owned() }),
                Some(_) => {
                    let text = "beneath is an absolute directory other than /, without . or .. in it and without a slash at its end";
                    problems.push(Problem::at("/beneath", text));
                    None
                }
                None => {
                    problems.push(Problem::at("", "an abs_path needs the directory it must lie beneath"));
                    None
                }
            },
            ParamType::Duration => {
                let (min, max) = (spec.min.unwrap_or(0), spec.max.unwrap_or(86_400));
                if min < 0 || min > max || max > LARGEST / 1000 {
                    problems.push(Problem::at("/min", "min and max are seconds, and min must not be above max"));
                }
                Some(Param::Duration { min, max })
            }
            ParamType::Text => text(spec, &mut problems),
        };
        match made {
            Some(param) if problems.is_empty() => Ok(param),
            _ => Err(problems),
        }
    }

    /// Takes a value, or says what is wrong with it, without repeating it.
    pub(crate) fn fill(&self, value: &Value) -> Result<Filled, String> {
        let given = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => match number.as_i64() {
                Some(number) => number.to_string(),
                None => return Err("must be a text or a whole number".to_owned()),
            },
            _ => return Err("must be a text or a whole number".to_owned()),
        };
        if given.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if given.chars().take(LONGEST + 1).count() > LONGEST {
            return Err(format!("must have at most {LONGEST} characters"));
        }
        if given.chars().any(is_hidden) {
            return Err("must not hold control or invisible characters".to_owned());
        }
        if given.starts_with('-') && !self.may_lead_with_dash() {
            return Err("must not begin with -".to_owned());
        }
        let is_good = match self {
            Param::Enum(values) => values.contains(&given),
            Param::Int { min, max } => {
                let number = given.parse::<i64>().ok().filter(|number| number.to_string() == given && (min..=max).contains(&number));
                let number = number.ok_or_else(|| self.wanted())?;
                return Ok(Filled { text: given, value: number.into() });
            }
            Param::Hostname => is_hostname(&given),
            Param::UnitName => is_unit_name(&given),
            Param::K8sName => is_k8s_name(&given),
            Param::AbsPath { beneath } => {
                is_clean_path(&given) && given.strip_prefix(beneath.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            Param::Duration { min, max } => {
                // a digit first: neither a sign nor a blank nor a leading zero
                let is_plain = given.bytes().next().is_some_and(|byte| matches!(byte, b'1'..=b'9')) && !given.contains(' ');
                let millis = given.parse::<Span>().ok().filter(|_| is_plain).map(|span| span.0.as_millis());
                let bound = |seconds: i64| u128::try_from(seconds).unwrap_or(0) * 1000;
                millis.is_some_and(|millis| (bound(*min)..=bound(*max)).contains(&millis))
            }
            Param::Text { pattern, max_length, .. } => given.chars().count() <= *max_length && pattern.is_match(&given),
        };
        if is_good { Ok(Filled { value: given.clone().into(), text: given }) } else { Err(self.wanted()) }
    }

    fn may_lead_with_dash(&self) -> bool {
        match self {
            Param::Enum(_) => true,
            Param::Int { min, .. } => *min < 0,
            Param::Text { leading_dash, .. } => *leading_dash,
            _ => false,
        }
    }

    /// Whether its value says what is acted on.
    pub(crate) fn names_a_target(&self) -> bool {
        matches!(self, Param::Hostname | Param::UnitName | Param::K8sName)
    }

    fn wanted(&self) -> String {
        match self {
            Param::Enum(values) => format!("must be one of {}", values.join(", ")),
            Param::Int { min, max } => format!("must be a whole number from {min} to {max}"),
            Param::Hostname => "must be a host name".to_owned(),
            Param::UnitName => "must be the name of a systemd unit".to_owned(),
            Param::K8sName => "must be the name of a Kubernetes object".to_owned(),
            Param::AbsPath { beneath } => format!("must be a path under {beneath}, without . or .. in it"),
            Param::Duration { min, max } => format!("must be a length of time such as 30s, from {min} s to {max} s"),
            Param::Text { max_length, .. } => format!("must match the pattern of this parameter, in at most {max_length} characters"),
        }
    }
}

fn text(spec: &ParamSpec, problems: &mut Vec<Problem>) -> Option<Param> {
    let max_length = spec.max_length.unwrap_or(TEXT_LENGTH);
    if !(1..=LONGEST).contains(&max_length) {
        problems.push(Problem::at("/max_length", format!("must be from 1 to {LONGEST}")));
    }
    let Some(pattern) = spec.pattern.as_deref() else {
        problems.push(Problem::at("", "a text needs a pattern that all of it must match"));
        return None;
    };
    // on its own first: `a)|(b` is no pattern, though it would be one inside of brackets
    let built = Regex::new(pattern).map_err(|error| error.to_string()).and_then(|_| {
        RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(PATTERN_BYTES).build().map_err(|error| error.to_string())
    });
    match built {
        Ok(pattern) => Some(Param::Text { pattern, max_length, leading_dash: spec.leading_dash }),
        Err(error) => {
            let last = error.lines().last().unwrap_or_default().trim();
            problems.push(Problem::at("/pattern", format!("is refused: {last}")));
            None
        }
    }
}

/// Keys that this type does not have: they would be ignored, and somebody may rely on them.
fn foreign_keys(spec: &ParamSpec, problems: &mut Vec<Problem>) {
    let ranged = matches!(spec.kind, ParamType::Int | ParamType::Duration);
    let is_text = spec.kind == ParamType::Text;
    for (key, is_there, belongs) in [
        ("values", !spec.values.is_empty(), spec.kind == ParamType::Enum),
        ("min", spec.min.is_some(), ranged),
        ("max", spec.max.is_some(), ranged),
        ("beneath", spec.beneath.is_some(), spec.kind == ParamType::AbsPath),
        ("pattern", spec.pattern.is_some(), is_text),
        ("max_length", spec.max_length.is_some(), is_text),
        ("leading_dash", spec.leading_dash, is_text),
    ] {
        if is_there && !belongs {
            problems.push(Problem::at(format!("/{key}"), "this type of parameter does not have this key"));
        }
    }
}

/// Absolute, one way to write it, and nowhere else than it says.
pub(crate) fn is_clean_path(path: &str) -> bool {
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_unit_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'@' | b'-');
    text.len() <= 255 && text.bytes().all(ok) && !text.starts_with('.')
}

fn is_k8s_name(text: &str) -> bool {
    is_hostname(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}
