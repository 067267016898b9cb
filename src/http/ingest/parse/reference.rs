//! The parser again, slow and obvious, for the tests to compare with: the body becomes a tree that
//! keeps duplicate keys, and the rules of the contract are asked of the tree one by one.

use std::{collections::BTreeMap, fmt};

use opspilot_kernel::{
    signal::{Severity, SignalKind},
    time::Timestamp,
};
use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, SeqAccess, Visitor},
};

use super::Format;

/// A JSON value that forgets nothing.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Null,
    Bool,
    Number(f64),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E: Error>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Bool)
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Tree, E> {
                Ok(Tree::Number(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Number(number.to_string().parse().map_err(E::custom)?))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Number(number.to_string().parse().map_err(E::custom)?))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Tree::Object(entries))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Tree::Array(items) => 1 + items.iter().map(Tree::depth).max().unwrap_or(0),
            Tree::Object(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Tree::Null | Tree::Bool | Tree::Number(_) | Tree::Text(_) => 0,
        }
    }
}

/// A signal that owns what it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signal {
    pub(super) kind: SignalKind,
    pub(super) severity: Severity,
    pub(super) resolved: bool,
    pub(super) at: Timestamp,
    pub(super) value: Option<f64>,
    pub(super) texts: BTreeMap<&'static str, String>,
    pub(super) labels: Vec<(String, String)>,
}

pub(super) const TEXTS: [&str; 8] = ["source", "message", "name", "unit", "fingerprint", "title", "description", "id"];

/// Every event of the body, acceptable or not; `None` if the body as a whole is malformed.
pub(super) fn parse(body: &[u8], format: Format, received_at: Timestamp) -> Option<Vec<Option<Signal>>> {
    match format {
        Format::Json => {
            let tree: Tree = serde_json::from_slice(body).ok()?;
            if tree.depth() > 64 {
                return None;
            }
            match tree {
                Tree::Array(items) => Some(items.iter().map(|item| signal(item, received_at)).collect()),
                Tree::Object(_) => Some(vec![signal(&tree, received_at)]),
                Tree::Null | Tree::Bool | Tree::Number(_) | Tree::Text(_) => None,
            }
        }
        Format::Lines => Some(
            body.split(|byte| *byte == b'\n')
                .filter(|line| !line.trim_ascii().is_empty())
                .map(|line| signal(&serde_json::from_slice(line).ok()?, received_at))
                .collect(),
        ),
    }
}

fn signal(tree: &Tree, received_at: Timestamp) -> Option<Signal> {
    let Tree::Object(entries) = tree else { return None };
    let mut fields = BTreeMap::new();
    for (name, value) in entries {
        if fields.insert(name.as_str(), value).is_some() {
            return None;
        }
    }
    let mut take = |name: &str| fields.remove(name).filter(|value| !matches!(value, Tree::Null));
    let mut texts = BTreeMap::new();
    for name in TEXTS {
        texts.insert(name, text(take(name))?);
    }
    let value = match take("value") {
        None => None,
        Some(Tree::Number(number)) if number.is_finite() => Some(*number),
        Some(_) => return None,
    };
    let kind = match choice(take("kind"))? {
        None if value.is_some() => SignalKind::Metric,
        None => SignalKind::Log,
        Some(kind) => [SignalKind::Log, SignalKind::Metric, SignalKind::Alert].into_iter().find(|known| known.as_str() == kind)?,
    };
    let severity = choice(take("severity"))?.map_or(Some(Severity::Info), |text| text.parse().ok())?;
    let resolved = match choice(take("status"))?.as_deref() {
        None | Some("firing") => false,
        Some("resolved") => true,
        Some(_) => return None,
    };
    let at = choice(take("timestamp"))?.map_or(Some(received_at), |text| text.parse().ok())?;
    let labels = labels(take("labels"))?;
    let given = |name: &str| !texts.get(name).is_none_or(String::is_empty);
    let complete = match kind {
        SignalKind::Log => given("message"),
        SignalKind::Metric => given("name") && value.is_some(),
        SignalKind::Alert => true,
    };
    let source = texts.get("source").map_or(0, |source| source.chars().count());
    if !fields.is_empty() || !complete || source == 0 || source > 256 {
        return None;
    }
    Some(Signal { kind, severity, resolved, at, value, texts, labels })
}

fn text(value: Option<&Tree>) -> Option<String> {
    match value {
        None => Some(String::new()),
        Some(Tree::Text(text)) if !text.contains('\0') => Some(text.clone()),
        Some(_) => None,
    }
}

fn choice(value: Option<&Tree>) -> Option<Option<String>> {
    if value.is_none() { Some(None) } else { text(value).map(Some) }
}

fn labels(value: Option<&Tree>) -> Option<Vec<(String, String)>> {
    let entries = match value {
        None => return Some(Vec::new()),
        Some(Tree::Object(entries)) => entries,
        Some(_) => return None,
    };
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in entries {
        let value = text(Some(value))?;
        let long = name.chars().count() > 128 || value.chars().count() > 1024;
        if long || name.is_empty() || name.contains('\0') || labels.iter().any(|(earlier, _)| earlier == name) {
            return None;
        }
        labels.push((name.clone(), value));
    }
    (labels.len() <= 64).then_some(labels)
}
