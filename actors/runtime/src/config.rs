//! Reads a module's section, and says where it is wrong: every mistake, not only the first.

use opspilot_kernel::config::{ModuleConfig, Problem, closest};
use serde_json::Value;

/// More problems than this are not looked for.
const MOST_PROBLEMS: usize = 50;

/// The section as the module's type. After a mistake what is mistaken is taken out and the rest is read again.
pub(crate) fn read<C: ModuleConfig>(mut section: Value) -> Result<C, Vec<Problem>> {
    if section.is_null() {
        section = Value::Object(serde_json::Map::new());
    }
    let mut problems = Vec::new();
    let mut removed = Removed::default();
    loop {
        let error = match serde_path_to_error::deserialize::<_, C>(&section) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let pointer = pointer(error.path());
        let text = error.inner().to_string();
        let pointer = match unknown(&text) {
            Some((name, _)) if !pointer.ends_with(&format!("/{}", escaped(name))) => format!("{pointer}/{}", escaped(name)),
            _ => pointer,
        };
        let mut problem = Problem::at(removed.original(&pointer), text.clone());
        if let Some((name, known)) = unknown(&text)
            && let Some(meant) = closest(name, known)
        {
            problem = problem.suggest(meant);
        }
        let seen = problems.contains(&problem);
        if !seen {
            problems.push(problem);
        }
        if seen || problems.len() >= MOST_PROBLEMS || !removed.take_out(&mut section, &pointer) {
            return Err(problems);
        }
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |mut pointer, segment| {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escaped(key))),
            Segment::Enum { variant } => pointer.push_str(&format!("/{}", escaped(variant))),
            Segment::Unknown => {}
        }
        pointer
    })
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name in serde's "unknown field `x`, expected one of `a`, `b`", and what it expected.
fn unknown(text: &str) -> Option<(&str, Vec<&str>)> {
    let rest = text.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((name, known))
}

/// What was taken out of arrays: array by pointer, items by the index they had at first, ascending.
#[derive(Default)]
struct Removed(Vec<(String, Vec<usize>)>);

impl Removed {
    /// The pointer as it was before anything was taken out.
    fn original(&self, pointer: &str) -> String {
        let (mut now, mut original) = (String::new(), String::new());
        for segment in pointer.split('/').skip(1) {
            let gone = self.0.iter().find(|(array, _)| *array == now).map(|(_, gone)| gone);
            let first = match (segment.parse::<usize>(), gone) {
                (Ok(index), Some(gone)) => restored(index, gone).to_string(),
                _ => segment.to_owned(),
            };
            now = format!("{now}/{segment}");
            original = format!("{original}/{first}");
        }
        original
    }

    /// Takes out what is at `pointer`; of an array the whole item that holds it, since the rest of the item may make
    /// no sense without it. False if there is nothing to take out.
    fn take_out(&mut self, section: &mut Value, pointer: &str) -> bool {
        let mut parent = String::new();
        for segment in pointer.split('/').skip(1) {
            match section.pointer_mut(&parent) {
                Some(Value::Array(items)) => {
                    let Ok(index) = segment.parse::<usize>() else { return false };
                    if index >= items.len() {
                        return false;
                    }
                    items.remove(index);
                    let at = self.0.iter().position(|(array, _)| *array == parent).unwrap_or(self.0.len());
                    if at == self.0.len() {
                        self.0.push((parent, Vec::new()));
                    }
                    if let Some((_, gone)) = self.0.get_mut(at) {
                        let first = restored(index, gone);
                        gone.insert(gone.partition_point(|other| *other < first), first);
                    }
                    return true;
                }
                Some(Value::Object(map)) if format!("{parent}/{segment}") == pointer => {
                    return map.remove(&segment.replace("~1", "/").replace("~0", "~")).is_some();
                }
                Some(Value::Object(_)) => parent = format!("{parent}/{segment}"),
                _ => return false,
            }
        }
        false
    }
}

/// The index an item had before those in `gone` were taken out.
fn restored(index: usize, gone: &[usize]) -> usize {
    gone.iter().fold(index, |index, gone| if *gone <= index { index.saturating_add(1) } else { index })
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::config::Span;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        every: Option<Span>,
        rules: Vec<Rule>,
    }

    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        id: String,
        #[serde(default)]
        limit: u8,
    }

    impl ModuleConfig for Config {}

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let section = json!({ "evry": "5s", "every": "5 parsecs", "rules": [{ "id": "a", "limit": 300 }, { "id": 7 }, { "id": "c", "limt": 1 }, { "id": "d" }] });
        let problems = read::<Config>(section).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert!(places.contains(&"/evry"), "{problems:?}");
        assert!(places.contains(&"/every"), "{problems:?}");
        assert!(places.contains(&"/rules/0/limit"), "{problems:?}");
        assert!(places.contains(&"/rules/1/id"), "{problems:?}");
        assert!(places.contains(&"/rules/2/limt"), "{problems:?}");
        assert_eq!(places.len(), 5, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.suggestion.as_deref() == Some("every")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.suggestion.as_deref() == Some("limit")), "{problems:?}");
    }

    #[test]
    fn nothing_at_all_is_the_default() {
        assert_eq!(read::<Config>(Value::Null), Ok(Config::default()));
    }
}
