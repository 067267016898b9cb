//! Secrets: where they come from, and how they stay out of what is said.

use std::{fs, path::Path};

use opspilot_kernel::config::Secret;
use serde_json::Value as Json;

use super::report::Finding;

/// Larger than any secret.
const MAX_FILE: u64 = 64 << 10;
/// A shorter text would be found everywhere, and is no secret.
const MIN_HIDDEN: usize = 4;

/// Why there is no secret: what is wrong, and what to do.
pub(super) type Unresolved = (String, &'static str);

/// Whether a schema is that of a secret.
pub(super) fn is_secret(schema: &Json) -> bool {
    schema.get("format").and_then(Json::as_str) == Some(Secret::FORMAT)
}

/// The value that `written` names: itself, a variable's, or a file's.
pub(super) fn resolve(written: &str) -> Result<String, Unresolved> {
    let value = if let Some(path) = written.strip_prefix("file:") {
        in_file(path)?
    } else if let Some(rest) = written.strip_prefix("${") {
        in_variable(rest)?
    } else {
        written.to_owned()
    };
    if value.is_empty() {
        return Err((
            "the secret is empty".to_owned(),
            "write it, or ${ENV_NAME}, or file:/run/secrets/x; leave the key out to do without",
        ));
    }
    Ok(value)
}

fn in_variable(rest: &str) -> Result<String, Unresolved> {
    let name = rest.strip_suffix('}').filter(|name| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    // what stands there may be the secret itself, so it is not repeated
    let Some(name) = name else {
        return Err(("not the name of an environment variable".to_owned(), "write ${ENV_NAME} and nothing around it"));
    };
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Err((
            format!("the environment variable {name} is not set"),
            "set it where the service is started, or name a file: file:/run/secrets/x",
        )),
        Err(std::env::VarError::NotUnicode(_)) => Err((format!("the environment variable {name} is not UTF-8"), "a secret is text")),
    }
}

fn in_file(path: &str) -> Result<String, Unresolved> {
    const HINT: &str = "name a file with nothing but the secret that the service's user can read, from the root: file:/run/secrets/x";
    let cannot = |why: &str| (format!("the secret's file {path} {why}"), HINT);
    if !Path::new(path).is_absolute() {
        return Err(cannot("is not named from the root"));
    }
    let about = fs::metadata(path).map_err(|error| cannot(&format!("cannot be read: {error}")))?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(cannot("is not a regular file of at most 64 KiB"));
    }
    let bytes = fs::read(path).map_err(|error| cannot(&format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("is not UTF-8"))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(cannot("is empty")),
        value => Ok(value.to_owned()),
    }
}

/// What must not be shown.
#[derive(Clone, Default)]
pub(super) struct Hidden {
    /// The keys whose values are secrets.
    keys: Vec<String>,
    /// Secrets, as they were written and as they are.
    values: Vec<String>,
}

impl Hidden {
    /// What a schema says is secret.
    pub(super) fn by(schema: &Json) -> Hidden {
        let mut keys = Vec::new();
        collect(schema, schema, &mut keys);
        keys.sort_unstable();
        keys.dedup();
        Hidden { keys, values: Vec::new() }
    }

    /// Also these texts.
    pub(super) fn and(mut self, values: impl IntoIterator<Item = String>) -> Hidden {
        self.values.extend(values.into_iter().filter(|value| value.len() >= MIN_HIDDEN));
        // the longest first: one may be part of another
        self.values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        self
    }

    /// A text without the secrets in it.
    pub(super) fn within(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, value| text.replace(value, Secret::SHOWN))
    }

    pub(super) fn finding(&self, finding: Finding) -> Finding {
        let suggestion = finding.suggestion.map(|text| self.within(&text));
        Finding { message: self.within(&finding.message), suggestion, ..finding }
    }

    /// A file as it may be shown. It may be no YAML at all: what stands behind a secret's key, and what is indented
    /// under it, is taken for the secret.
    pub(super) fn source(&self, text: &str) -> String {
        let mut under: Option<usize> = None;
        let mut shown = Vec::new();
        for line in text.lines() {
            let indent = line.chars().take_while(|c| *c == ' ').count();
            // what is no key of its own goes on with the value
            let goes_on =
                |column| indent > column || line.trim().is_empty() || !(line.contains(':') || line.trim_start().starts_with(['-', '#']));
            if under.is_some_and(goes_on) {
                shown.push(format!("{}{}", " ".repeat(indent), Secret::SHOWN));
                continue;
            }
            let found = self.keys.iter().filter_map(|key| behind(line, key)).min();
            under = found.map(|(column, _)| column);
            match found.and_then(|(_, end)| line.get(..end)) {
                Some(kept) => shown.push(format!("{} {}", self.within(kept), Secret::SHOWN)),
                None => shown.push(self.within(line)),
            }
        }
        shown.join("\n")
    }
}

/// Where `key` stands in the line, in characters, and where its value begins, in bytes.
fn behind(line: &str, key: &str) -> Option<(usize, usize)> {
    line.match_indices(key).find_map(|(start, _)| {
        let (before, rest) = (line.get(..start)?, line.get(start + key.len()..)?);
        let alone = before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
        let colon = rest.trim_start_matches(['"', '\'']).trim_start();
        let end = line.len() - colon.strip_prefix(':')?.len();
        alone.then(|| (before.trim_end_matches(['"', '\'']).chars().count(), end))
    })
}

/// The keys below `schema` that lead to a secret.
fn collect(root: &Json, schema: &Json, keys: &mut Vec<String>) {
    match schema {
        Json::Object(object) => {
            if let Some(Json::Object(properties)) = object.get("properties") {
                keys.extend(properties.iter().filter(|(_, inner)| leads_to_secret(root, inner, 0)).map(|(name, _)| name.clone()));
            }
            object.values().for_each(|inner| collect(root, inner, keys));
        }
        Json::Array(items) => items.iter().for_each(|inner| collect(root, inner, keys)),
        _ => {}
    }
}

/// Whether a value of this schema is a secret, or a list or a map of them.
pub(super) fn leads_to_secret(root: &Json, schema: &Json, depth: usize) -> bool {
    if is_secret(schema) {
        return true;
    }
    let named = schema.get("$ref").and_then(Json::as_str).and_then(|name| root.pointer(name.strip_prefix('#')?));
    let choices = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    let inner = ["items", "additionalProperties"].iter().filter_map(|key| schema.get(key));
    depth < 8 && named.into_iter().chain(choices).chain(inner).any(|inner| leads_to_secret(root, inner, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_the_file_itself_a_variable_or_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let of_file = || resolve(&format!("file:{}", file.display()));
        assert_eq!(resolve("as it is"), Ok("as it is".to_owned()));
        assert_eq!(resolve("${CARGO_PKG_NAME}"), Ok("opspilot".to_owned()));
        assert!(of_file().unwrap_err().0.contains("cannot be read: No such file"));
        fs::write(&file, "from a file\r\n").unwrap();
        assert_eq!(of_file(), Ok("from a file".to_owned()));
        fs::write(&file, "\n").unwrap();
        assert!(of_file().unwrap_err().0.ends_with("is empty"));
        assert!(resolve("${OPSPILOT_NO_SUCH_VARIABLE}").unwrap_err().0.contains("OPSPILOT_NO_SUCH_VARIABLE is not set"));
        for wrong in ["${}", "${A}b", "${A", "${hunter2!}"] {
            let (what, hint) = resolve(wrong).unwrap_err();
            assert!(what.contains("not the name") && hint.contains("${ENV_NAME}") && !what.contains("hunter2"), "{wrong}: {what}");
        }
        assert!(resolve("file:relative").unwrap_err().0.contains("not named from the root"));
        assert!(resolve("file:/dev/zero").unwrap_err().0.contains("regular file"));
        assert!(resolve("").unwrap_err().0.contains("empty"));
    }

    #[test]
    fn a_file_is_shown_without_what_stands_behind_a_secrets_key() {
        let hidden = Hidden { keys: vec!["token".to_owned()], values: Vec::new() }.and(["elsewhere".to_owned(), "a".to_owned()]);
        let written = [
            "a: {token: abc, b: c}",
            "- 'token' : \"abc",
            "  more abc",
            "  b: the token of esteem",
            "- token: |",
            "    abc",
            "",
            "    a: bc",
            "  b: c",
            "my_token: x",
            "x: elsewhere",
        ];
        let shown = [
            "a: {token: ***",
            "- 'token' : ***",
            "  ***",
            "  b: the token of esteem",
            "- token: ***",
            "    ***",
            "***",
            "    ***",
            "  b: c",
            "my_token: x",
            "x: ***",
        ];
        assert_eq!(hidden.source(&written.join("\n")).lines().collect::<Vec<_>>(), shown);
        assert!(!hidden.source("token: 'abc\n  def\nx: [").contains("def"));
    }
}
