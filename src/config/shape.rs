//! Reading a schema, and saying in words what it wants.

use opspilot_kernel::config::closest;
use serde_json::{Map, Value as Json};

use super::{
    report::Finding,
    tree::{Field, Node, Value},
};

pub(super) fn unknown_key(field: &Field, pointer: &str, properties: Option<&Map<String, Json>>) -> Finding {
    let names = || properties.into_iter().flat_map(|known| known.keys().map(String::as_str));
    let finding = Finding::at(field.place.clone(), pointer, format!("unknown key `{}`", short(&field.key)));
    match closest(&field.key, names()) {
        Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
        None => finding.suggest(listed(names())),
    }
}

pub(super) fn missing(name: &str, properties: Option<&Map<String, Json>>, node: &Node, pointer: &str) -> Finding {
    let finding = Finding::at(node.place.clone(), pointer, format!("`{name}` is missing"));
    match properties.and_then(|known| known.get(name)).and_then(|schema| schema.get("description")).and_then(Json::as_str) {
        Some(about) => finding.suggest(format!("{name}: {}", sentence(about))),
        None => finding,
    }
}

pub(super) fn is_null_schema(schema: &Json) -> bool {
    schema.get("type").and_then(Json::as_str) == Some("null")
}

pub(super) fn type_of(schema: &Json) -> Option<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => Some(one),
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).find(|t| *t != "null"),
        _ if schema.get("properties").is_some() => Some("object"),
        _ => None,
    }
}

pub(super) fn words_of(schema: &Json) -> Vec<&str> {
    let one = schema.get("const").and_then(Json::as_str);
    let several = schema.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    one.into_iter().chain(several).collect()
}

/// The key whose word tells the shapes apart, if they are all objects that fix one.
pub(super) fn tag_of<'s>(choices: &[&'s Json]) -> Option<&'s str> {
    let tags = |choice: &'s Json| -> Vec<&'s str> {
        let known = choice.get("properties").and_then(Json::as_object);
        known.into_iter().flatten().filter(|(_, schema)| schema.get("const").is_some()).map(|(name, _)| name.as_str()).collect()
    };
    let (first, rest) = choices.split_first()?;
    tags(first).into_iter().find(|tag| rest.iter().all(|choice| tags(choice).contains(tag)))
}

pub(super) fn shape_fits(schema: &Json, node: &Node) -> bool {
    match (&node.value, type_of(schema)) {
        (Value::Map(_), kind) => kind == Some("object"),
        (Value::List(_), kind) => kind == Some("array"),
        (Value::Scalar { .. }, kind) => !matches!(kind, Some("object" | "array")),
    }
}

pub(super) fn bounds(schema: &Json) -> (Option<f64>, Option<f64>) {
    let given = |key: &str| schema.get(key).and_then(Json::as_f64);
    let (least, most) = match schema.get("format").and_then(Json::as_str) {
        Some("uint8") => (Some(0.0), Some(255.0)),
        Some("uint16") => (Some(0.0), Some(65_535.0)),
        Some("uint32") => (Some(0.0), Some(4_294_967_295.0)),
        Some("uint" | "uint64") => (Some(0.0), None),
        _ => (None, None),
    };
    (given("minimum").or(least), given("maximum").or(most))
}

/// The first sentence, however its lines were broken.
fn sentence(text: &str) -> String {
    let paragraph: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let paragraph = paragraph.join(" ");
    let end = paragraph.match_indices(". ").map(|(dot, _)| dot + 1).find(|end| {
        // not after `e.g.` or within what goes on in lower case
        paragraph.get(end + 1..).and_then(|rest| rest.chars().next()).is_some_and(char::is_uppercase)
    });
    end.and_then(|end| paragraph.get(..end)).unwrap_or(&paragraph).to_owned()
}

/// What the pattern stands for, in words.
pub(super) fn described(schema: &Json) -> String {
    match schema.get("title").or_else(|| schema.get("description")).and_then(Json::as_str) {
        Some(title) => sentence(title).trim_end_matches('.').to_lowercase(),
        None if schema.get("pattern").and_then(Json::as_str).is_some_and(|p| p.contains("KiB")) => "a size".to_owned(),
        None if schema.get("pattern").and_then(Json::as_str).is_some_and(|p| p.contains("ms|")) => "a duration".to_owned(),
        None => format!("of the form {}", schema.get("pattern").and_then(Json::as_str).unwrap_or_default()),
    }
}

pub(super) fn with_example(finding: Finding, schema: &Json) -> Finding {
    let pattern = schema.get("pattern").and_then(Json::as_str).unwrap_or_default();
    let example = schema.get("examples").and_then(Json::as_array).and_then(|all| all.first()).and_then(Json::as_str);
    if pattern.contains("ms|") {
        finding.suggest("write a number and a unit: 500ms, 30s, 5m, 2h or 7d")
    } else if pattern.contains("KiB") {
        finding.suggest("write a number and a unit: 512B, 64KiB, 10MiB or 2GiB")
    } else if let Some(example) = example {
        finding.suggest(format!("such as {example}"))
    } else {
        finding
    }
}

pub(super) fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [] => "nothing may stand here".to_owned(),
        [only] => format!("write `{only}`"),
        many => format!("one of {}", many.join(", ")),
    }
}

/// Text from outside, safe and short enough to be shown.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > 60 {
        shown.push('…');
    }
    shown
}

/// A value that no schema describes, by the rules of YAML 1.2.
pub(super) fn untyped(node: &Node) -> Json {
    match &node.value {
        Value::Scalar { text, plain: false } => Json::String(text.clone()),
        Value::Scalar { .. } if node.is_null() => Json::Null,
        Value::Scalar { text, .. } => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            other => {
                let whole = other.parse::<i64>().map(Json::from);
                let number = other.parse::<f64>().ok().filter(|n| n.is_finite()).map(Json::from);
                whole.ok().or(number).unwrap_or_else(|| Json::String(text.clone()))
            }
        },
        Value::List(items) => Json::Array(items.iter().map(untyped).collect()),
        Value::Map(fields) => Json::Object(fields.iter().map(|field| (field.key.clone(), untyped(&field.node))).collect()),
    }
}

/// What was found, in words.
pub(super) fn given(node: &Node) -> String {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => "nothing".to_owned(),
        Value::Scalar { text, .. } => format!("`{}`", short(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "keys and values".to_owned(),
    }
}
