//! Holds a tree against a JSON Schema: finds everything that is wrong, and yields the JSON.
//!
//! It understands what `schemars` writes for configuration types: objects, lists, maps, texts
//! with patterns, numbers with bounds, words from a list, options, and choices by a tag. An object
//! whose schema names its keys takes no others.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::config::closest;
use serde_json::{Map, Value as Json};

use super::{
    Network,
    report::{Finding, Place, escaped},
    secrets::{is_secret, leads_to_secret, resolve},
    shape::{
        bounds, described, given, is_null_schema, listed, missing, shape_fits, short, tag_of, type_of, unknown_key, untyped, with_example,
        words_of,
    },
    tree::{Field, Node, Value},
};

/// What a walk found besides the JSON.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    /// Where each value was written, by JSON pointer; keys under `pointer` + `#`.
    pub(super) places: BTreeMap<String, Place>,
    /// Where something stands in for a value that is wrong or missing, so that the rest can still be checked.
    pub(super) patched: BTreeSet<String>,
    /// Addresses that something will listen on: pointer, transport, text.
    pub(super) listeners: Vec<(String, String, String)>,
    /// Where secrets are, by JSON pointer.
    pub(super) secrets: Vec<String>,
    /// What must not be shown: secrets, and what may be one.
    pub(super) hidden: Vec<String>,
}

impl Walked {
    /// The place of what `pointer` names: the nearest thing that was written, looking outwards.
    pub(super) fn place_of(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return place.clone();
            }
            match pointer.rfind('/') {
                Some(cut) => pointer = pointer.get(..cut).unwrap_or_default(),
                None => return Place::Default,
            }
        }
    }

    /// Whether what `pointer` names, or something around it, was found wrong already.
    pub(super) fn is_patched(&self, pointer: &str) -> bool {
        let around = pointer.match_indices('/').filter_map(|(cut, _)| pointer.get(..cut));
        around.chain(std::iter::once(pointer)).any(|pointer| self.patched.contains(pointer))
    }

    /// Whether `message`, about what `pointer` names, speaks of a neighbour that was found wrong already:
    /// then it was judged against a stand-in.
    pub(super) fn blames_patched(&self, pointer: &str, message: &str) -> bool {
        let Some((parent, own)) = pointer.rsplit_once('/') else { return false };
        let words = || message.split(|c: char| !c.is_alphanumeric() && c != '_');
        let neighbours = self.patched.iter().filter_map(|patched| patched.strip_prefix(parent)?.strip_prefix('/'));
        neighbours.filter(|name| *name != own && !name.contains('/')).any(|name| words().any(|word| word == name))
    }

    fn absorb(&mut self, other: Walked) {
        self.findings.extend(other.findings);
        self.places.extend(other.places);
        self.patched.extend(other.patched);
        self.listeners.extend(other.listeners);
        self.secrets.extend(other.secrets);
        self.hidden.extend(other.hidden);
    }
}

/// Walks `node` by the schema `root`. The JSON always has the right shape; it is what was written only
/// if nothing was found.
pub(super) fn walk(root: &Json, node: &Node) -> (Json, Walked) {
    let mut walked = Walked::default();
    let json = Walker { root }.value(root, node, "", &mut walked);
    (json, walked)
}

/// The schema that applies to what `path` names, as far as it says; for callers that hold no tree.
pub(super) fn schema_at<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    Walker { root }.resolved(schema)
}

struct Walker<'s> {
    root: &'s Json,
}

impl<'s> Walker<'s> {
    /// The schema itself, behind references and behind "or null".
    fn resolved(&self, mut schema: &'s Json) -> &'s Json {
        for _ in 0..16 {
            if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
                match reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                    Some(found) => schema = found,
                    None => return schema,
                }
                continue;
            }
            let choices = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array);
            let real: Vec<&Json> = choices.into_iter().flatten().filter(|choice| !is_null_schema(choice)).collect();
            match (real.as_slice(), schema.get("allOf").and_then(Json::as_array).map(Vec::as_slice)) {
                ([only], _) if choices.is_some_and(|all| all.len() == 2) => schema = only,
                (_, Some([only])) if schema.get("type").is_none() => schema = only,
                _ => return schema,
            }
        }
        schema
    }

    fn nullable(&self, schema: &'s Json) -> bool {
        let by_type = schema.get("type").and_then(Json::as_array).is_some_and(|types| types.iter().any(|t| t == "null"));
        let by_choice = ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(key).and_then(Json::as_array)).flatten().any(is_null_schema);
        let behind = schema.get("$ref").is_some() && !std::ptr::eq(self.resolved(schema), schema) && self.nullable(self.resolved(schema));
        by_type || by_choice || behind
    }

    fn value(&self, schema: &'s Json, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        out.places.insert(pointer.to_owned(), node.place.clone());
        if node.is_null() && self.nullable(schema) {
            return Json::Null;
        }
        let schema = self.resolved(schema);
        if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) {
            return self.choice(schema, choices, node, pointer, out);
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array) {
            return self.word(schema, words.iter().filter_map(Json::as_str), node, pointer, out);
        }
        if let Some(word) = schema.get("const").and_then(Json::as_str) {
            return self.word(schema, std::iter::once(word), node, pointer, out);
        }
        match type_of(schema) {
            Some("object") => self.object(schema, node, pointer, out),
            Some("array") => self.list(schema, node, pointer, out),
            Some("string") => self.text(schema, node, pointer, out),
            Some("boolean") => self.truth(schema, node, pointer, out),
            Some(kind @ ("integer" | "number")) => self.number(schema, kind, node, pointer, out),
            _ => untyped(node),
        }
    }

    /// One of several shapes: the words of an enumeration, the shape a tag names, or whichever fits best.
    fn choice(&self, schema: &'s Json, choices: &'s [Json], node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let choices: Vec<&Json> = choices.iter().map(|choice| self.resolved(choice)).collect();
        let words: Vec<&str> = choices.iter().flat_map(|choice| words_of(choice)).collect();
        let all_words = choices.iter().all(|choice| choice.get("const").is_some() || choice.get("enum").is_some());
        if all_words {
            return self.word(schema, words.into_iter(), node, pointer, out);
        }
        if let (Value::Map(_), Some(tag)) = (&node.value, tag_of(&choices)) {
            return self.tagged(schema, (tag, &choices), node, pointer, out);
        }
        let mut best: Option<(usize, Json, Walked)> = None;
        for choice in choices {
            let mut tried = Walked::default();
            let json = self.value(choice, node, pointer, &mut tried);
            out.hidden.append(&mut tried.hidden);
            let cost = tried.findings.len() + if shape_fits(choice, node) { 0 } else { 1000 };
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, json, tried));
            }
        }
        let Some((_, json, tried)) = best else { return untyped(node) };
        out.absorb(tried);
        json
    }

    fn tagged(&self, schema: &'s Json, (tag, choices): (&str, &[&'s Json]), node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let fields: &[Field] = if let Value::Map(fields) = &node.value { fields } else { &[] };
        let name_of = |choice: &'s Json| choice.get("properties").and_then(|p| p.get(tag)).and_then(|t| words_of(t).first().copied());
        let Some(field) = fields.iter().find(|field| field.key == tag) else {
            let finding = Finding::at(node.place.clone(), pointer, format!("`{tag}` is missing"));
            return self.fail(finding.suggest(listed(choices.iter().filter_map(|c| name_of(c)))), schema, pointer, out);
        };
        let written = match &field.node.value {
            Value::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        match choices.iter().find(|choice| name_of(choice) == Some(written)) {
            Some(choice) => self.value(choice, node, pointer, out),
            None => {
                let at = format!("{pointer}/{}", escaped(tag));
                self.word(schema, choices.iter().filter_map(|c| name_of(c)), &field.node, &at, out);
                out.patched.insert(pointer.to_owned());
                self.stand_in(schema, 0)
            }
        }
    }

    fn object(&self, schema: &'s Json, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let fields: &[Field] = match &node.value {
            Value::Map(fields) => fields,
            // `server:` with everything under it commented out means the defaults
            _ if node.is_null() => &[],
            _ => return self.wrong(schema, node, pointer, "keys and values", out),
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        let closed = others == Some(&Json::Bool(false)) || (properties.is_some() && others.is_none());
        let mut object = Map::new();
        for field in fields {
            let at = format!("{pointer}/{}", escaped(&field.key));
            out.places.insert(format!("{at}#"), field.place.clone());
            let known = properties.and_then(|known| known.get(&field.key));
            match known.or(if closed { None } else { Some(others.unwrap_or(&Json::Bool(true))) }) {
                Some(inner) => {
                    object.insert(field.key.clone(), self.value(inner, &field.node, &at, out));
                }
                None => {
                    if properties.into_iter().flatten().any(|(_, inner)| leads_to_secret(self.root, inner, 0)) {
                        // it may be a secret under a misspelt name
                        texts(&field.node, &mut out.hidden);
                    }
                    out.findings.push(unknown_key(field, &at, properties));
                }
            }
        }
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !fields.iter().any(|field| field.key == name) {
                let misspelt = fields
                    .iter()
                    .any(|field| properties.is_some_and(|p| !p.contains_key(&field.key)) && closest(&field.key, [name]).is_some());
                if !misspelt {
                    out.findings.push(missing(name, properties, node, pointer));
                }
                let wanted = properties.and_then(|known| known.get(name)).unwrap_or(&Json::Null);
                object.insert(name.to_owned(), self.stand_in(wanted, 0));
                out.patched.insert(format!("{pointer}/{}", escaped(name)));
            }
        }
        Json::Object(object)
    }

    fn list(&self, schema: &'s Json, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let Value::List(items) = &node.value else {
            return if node.is_null() { Json::Array(Vec::new()) } else { self.wrong(schema, node, pointer, "a list", out) };
        };
        let any = Json::Bool(true);
        let inner = schema.get("items").unwrap_or(&any);
        for (key, least) in [("minItems", true), ("maxItems", false)] {
            let bound = schema.get(key).and_then(Json::as_u64).and_then(|bound| usize::try_from(bound).ok());
            if let Some(bound) = bound.filter(|bound| if least { items.len() < *bound } else { items.len() > *bound }) {
                let what = format!("{} {bound} items wanted, {} given", if least { "at least" } else { "at most" }, items.len());
                out.findings.push(Finding::at(node.place.clone(), pointer, what));
            }
        }
        let list = items.iter().enumerate().map(|(index, item)| self.value(inner, item, &format!("{pointer}/{index}"), out)).collect();
        repeated_ids(items, pointer, out);
        Json::Array(list)
    }

    fn text(&self, schema: &'s Json, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let Value::Scalar { text, .. } = &node.value else { return self.wrong(schema, node, pointer, "text", out) };
        if node.is_null() {
            return self.wrong(schema, node, pointer, "text", out);
        }
        if is_secret(schema) {
            return self.secret(schema, (text, node), pointer, out);
        }
        let length = text.chars().count();
        for (key, least) in [("minLength", true), ("maxLength", false)] {
            let bound = schema.get(key).and_then(Json::as_u64).and_then(|bound| usize::try_from(bound).ok());
            if let Some(bound) = bound.filter(|bound| if least { length < *bound } else { length > *bound }) {
                let what = if length == 0 {
                    "empty".to_owned()
                } else {
                    format!("{} {bound} characters", if least { "shorter than" } else { "longer than" })
                };
                return self.fail(Finding::at(node.place.clone(), pointer, what), schema, pointer, out);
            }
        }
        let pattern = schema.get("pattern").and_then(Json::as_str).and_then(|pattern| regex::Regex::new(pattern).ok());
        if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
            let what = format!("`{}` is not {}", short(text), described(schema));
            return self.fail(with_example(Finding::at(node.place.clone(), pointer, what), schema), schema, pointer, out);
        }
        let format = schema.get("format").and_then(Json::as_str);
        if format == Some("network") && text.parse::<Network>().is_err() {
            let finding = Finding::at(node.place.clone(), pointer, format!("`{}` is neither an address nor a network", short(text)));
            return self.fail(
                finding.suggest("write an address or a network, such as 10.0.0.7, 10.0.0.0/8 or fd00::/8"),
                schema,
                pointer,
                out,
            );
        }
        if format == Some("listen-address") {
            if text.parse::<std::net::SocketAddr>().is_err() {
                let finding = Finding::at(node.place.clone(), pointer, format!("`{}` is not an address and a port", short(text)));
                return self.fail(finding.suggest("write an IP address, a colon and a port, such as 127.0.0.1:3000"), schema, pointer, out);
            }
            let transport = schema.get("x-transport").and_then(Json::as_str).unwrap_or("tcp");
            out.listeners.push((pointer.to_owned(), transport.to_owned(), text.clone()));
        }
        Json::String(text.clone())
    }

    /// A secret's place is remembered; its value goes nowhere but into the JSON.
    fn secret(&self, schema: &'s Json, (text, node): (&str, &Node), pointer: &str, out: &mut Walked) -> Json {
        out.secrets.push(pointer.to_owned());
        match resolve(text) {
            Ok(value) => {
                out.hidden.push(value.clone());
                Json::String(value)
            }
            Err((what, hint)) => self.fail(Finding::at(node.place.clone(), pointer, what).suggest(hint), schema, pointer, out),
        }
    }

    fn truth(&self, schema: &'s Json, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let Value::Scalar { text, plain: true } = &node.value else {
            return self.wrong(schema, node, pointer, "true or false", out);
        };
        match text.as_str() {
            "true" | "True" | "TRUE" => Json::Bool(true),
            "false" | "False" | "FALSE" => Json::Bool(false),
            other => {
                let meant = match other.to_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" => "true",
                    "no" | "off" | "n" | "0" => "false",
                    _ => "true or false",
                };
                let what = format!("`{}` is not true or false", short(other));
                self.fail(Finding::at(node.place.clone(), pointer, what).suggest(format!("write {meant}")), schema, pointer, out)
            }
        }
    }

    fn number(&self, schema: &'s Json, kind: &str, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let name = if kind == "integer" { "a whole number" } else { "a number" };
        let Value::Scalar { text, plain: true } = &node.value else { return self.wrong(schema, node, pointer, name, out) };
        let digits = text.replace('_', "");
        let number = match (digits.parse::<i64>(), digits.parse::<u64>(), digits.parse::<f64>()) {
            (Ok(number), ..) => Json::from(number),
            (_, Ok(number), _) => Json::from(number),
            (.., Ok(number)) if kind == "number" && number.is_finite() && digits.contains(|c: char| c.is_ascii_digit()) => {
                Json::from(number)
            }
            _ => return self.wrong(schema, node, pointer, name, out),
        };
        let value = number.as_f64().unwrap_or_default();
        let (low, high) = bounds(schema);
        if low.is_some_and(|low| value < low) || high.is_some_and(|high| value > high) {
            let range = match (low, high) {
                (Some(low), Some(high)) => format!("from {low} to {high}"),
                (Some(low), None) => format!("at least {low}"),
                (_, high) => format!("at most {}", high.unwrap_or_default()),
            };
            let finding = Finding::at(node.place.clone(), pointer, format!("{text} is out of range"));
            return self.fail(finding.suggest(format!("write {name} {range}")), schema, pointer, out);
        }
        number
    }

    fn word<'w>(&self, schema: &'s Json, words: impl Iterator<Item = &'w str>, node: &Node, pointer: &str, out: &mut Walked) -> Json {
        let words: Vec<&str> = words.collect();
        let Value::Scalar { text, .. } = &node.value else {
            return self.wrong(schema, node, pointer, &listed(words.into_iter()), out);
        };
        if words.contains(&text.as_str()) {
            return Json::String(text.clone());
        }
        let suggestion = match closest(text, words.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => listed(words.into_iter()),
        };
        let finding = Finding::at(node.place.clone(), pointer, format!("`{}` is not known here", short(text)));
        self.fail(finding.suggest(suggestion), schema, pointer, out)
    }

    fn wrong(&self, schema: &'s Json, node: &Node, pointer: &str, wanted: &str, out: &mut Walked) -> Json {
        let finding = Finding::at(node.place.clone(), pointer, format!("{wanted} expected, {} found", given(node)));
        self.fail(finding, schema, pointer, out)
    }

    fn fail(&self, finding: Finding, schema: &'s Json, pointer: &str, out: &mut Walked) -> Json {
        out.findings.push(finding);
        out.patched.insert(pointer.to_owned());
        self.stand_in(schema, 0)
    }

    /// Something of the right shape.
    fn stand_in(&self, schema: &'s Json, depth: usize) -> Json {
        let schema = self.resolved(schema);
        if let Some(default) = schema.get("default").or_else(|| schema.get("examples").and_then(|all| all.get(0))) {
            return default.clone();
        }
        if let Some(word) = words_of(schema).first() {
            return Json::from(*word);
        }
        if let Some(first) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(|choices| choices.get(0)).filter(|_| depth < 8) {
            return self.stand_in(first, depth + 1);
        }
        match type_of(schema) {
            Some("object") => {
                let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
                let property = |name: &str| schema.get("properties").and_then(|known| known.get(name)).unwrap_or(&Json::Null);
                let filled = required.filter(|_| depth < 8).map(|name| (name.to_owned(), self.stand_in(property(name), depth + 1)));
                Json::Object(filled.collect())
            }
            Some("array") => Json::Array(Vec::new()),
            Some("string") => Json::from("stand-in"),
            Some("boolean") => Json::Bool(false),
            Some("integer" | "number") => {
                let (least, most) = bounds(schema);
                schema
                    .get("minimum")
                    .or(schema.get("maximum"))
                    .cloned()
                    .unwrap_or_else(|| Json::from(if least.or(most).is_some() { 1 } else { 0 }))
            }
            _ => Json::Null,
        }
    }
}

/// Every text in a tree.
fn texts(node: &Node, all: &mut Vec<String>) {
    match &node.value {
        Value::Scalar { text, .. } => all.push(text.clone()),
        Value::List(items) => items.iter().for_each(|item| texts(item, all)),
        Value::Map(fields) => fields.iter().for_each(|field| texts(&field.node, all)),
    }
}

/// Two items of one list that share an `id`.
fn repeated_ids(items: &[Node], pointer: &str, out: &mut Walked) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let Value::Map(fields) = &item.value else { continue };
        let Some(field) = fields.iter().find(|field| field.key == "id") else { continue };
        let Value::Scalar { text, .. } = &field.node.value else { continue };
        match seen.get(text.as_str()) {
            Some(first) => {
                let at = format!("{pointer}/{index}/id");
                let finding = Finding::at(field.node.place.clone(), &at, format!("duplicate id `{}`", short(text)));
                out.findings.push(finding.suggest(format!("it is already used at {first}")));
                // said; a module that looks for the same need not say it again
                out.patched.insert(at);
            }
            None => {
                seen.insert(text, &field.node.place);
            }
        }
    }
}
