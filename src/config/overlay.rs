//! Environment variables and flags, laid over the file.
//!
//! `OPSPILOT__SERVER__LISTEN` sets `server.listen`. The parts are compared without `_`, `.` and case,
//! so that `OPSPILOT__MODULES__DETECTOR_REGEX__ENABLED` reaches `modules."detector.regex".enabled`.

use opspilot_kernel::config::closest;
use serde_json::Value as Json;

use super::{
    report::{Finding, Place, escaped},
    shape::type_of,
    tree::{Field, Node, Value, parse},
    walk::schema_at,
};

/// What every such variable starts with. `OPSPILOT_TOKEN` and the like are no configuration.
const PREFIX: &str = "OPSPILOT__";

/// Lays the variables over `tree`, by the names that `schema` knows.
pub(super) fn variables(tree: &mut Node, schema: &Json, variables: &[(String, String)], findings: &mut Vec<Finding>) {
    for (name, value) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        match resolve(schema, path) {
            Ok((keys, leaf)) => {
                let node = match type_of(leaf) {
                    // a list or a mapping is written as in the file: ['10.0.0.0/8']
                    Some("array" | "object") => {
                        let mut inner = Vec::new();
                        let node = parse(value, &mut inner);
                        findings.extend(inner.into_iter().map(|finding| Finding { place: place.clone(), ..finding }));
                        node.map(|node| moved(node, &place))
                    }
                    _ => Some(Node::plain(place.clone(), value)),
                };
                if let Some(node) = node {
                    set(tree, &keys, node);
                }
            }
            Err(finding) => findings.push(Finding { place, ..finding }),
        }
    }
}

/// Sets one value by its path.
pub(super) fn set(tree: &mut Node, path: &[String], node: Node) {
    let Some((first, rest)) = path.split_first() else {
        *tree = node;
        return;
    };
    if !matches!(tree.value, Value::Map(_)) {
        if !tree.is_null() {
            // the file is wrong here; it is reported as it stands
            return;
        }
        tree.value = Value::Map(Vec::new());
    }
    let Value::Map(fields) = &mut tree.value else { return };
    match fields.iter_mut().find(|field| field.key == *first) {
        Some(field) => set(&mut field.node, rest, node),
        None => {
            let mut field = Field { key: first.clone(), place: node.place.clone(), node: Node::empty(node.place.clone()) };
            set(&mut field.node, rest, node);
            fields.push(field);
        }
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The keys that `path` means, and the schema of what they lead to.
fn resolve<'s>(root: &'s Json, path: &str) -> Result<(Vec<String>, &'s Json), Finding> {
    let mut schema = root;
    let mut keys: Vec<String> = Vec::new();
    for part in path.split("__") {
        schema = schema_at(root, schema);
        let known = schema.get("properties").and_then(Json::as_object);
        let found = known.into_iter().flatten().find(|(key, _)| plain(key) == plain(part));
        if let Some((key, inner)) = found {
            keys.push(key.clone());
            schema = inner;
            continue;
        }
        let pointer: String = keys.iter().map(|key| format!("/{}", escaped(key))).collect();
        let finding = Finding::at(Place::Default, &pointer, format!("unknown part `{part}`"));
        let words: Vec<String> = known.into_iter().flatten().map(|(key, _)| written(key)).collect();
        let suggestion = match closest(part, words.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if words.is_empty() => "nothing can be set below this".to_owned(),
            None => format!("one of {}", words.join(", ")),
        };
        return Err(finding.suggest(suggestion));
    }
    Ok((keys, schema_at(root, schema)))
}

/// A key as a variable writes it: `connector.fileTail` is `CONNECTOR_FILETAIL`.
fn written(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn moved(mut node: Node, place: &Place) -> Node {
    node.place = place.clone();
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter_mut().for_each(|item| *item = moved(item.clone(), place)),
        Value::Map(fields) => fields.iter_mut().for_each(|field| {
            field.place = place.clone();
            field.node = moved(field.node.clone(), place);
        }),
    }
    node
}
