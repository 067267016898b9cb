//! The schema of the whole file, put together from the sections and from every module.

use opspilot_runtime::Entry;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value as Json, json};

use super::sections::{Ledger, Limits, Log, Outbound, Server};

/// Every module there is, in the order of start.
pub type Catalogue<'a> = [&'a Entry];

/// The JSON Schema of the configuration file, for editors and for [`super::load()`].
pub fn document(catalogue: &Catalogue<'_>) -> Json {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut properties = Map::new();
    section::<Server>(&mut generator, &mut properties, "server");
    section::<Ledger>(&mut generator, &mut properties, "ledger");
    section::<Outbound>(&mut generator, &mut properties, "outbound");
    section::<opspilot_safety::Policy>(&mut generator, &mut properties, "policy");
    section::<Log>(&mut generator, &mut properties, "log");
    section::<Limits>(&mut generator, &mut properties, "limits");
    let modules: Map<String, Json> = catalogue.iter().map(|entry| (entry.id.as_str().to_owned(), module(entry, &mut generator))).collect();
    properties.insert(
        "modules".to_owned(),
        json!({
            "type": "object",
            "description": "Every module by its id.",
            "properties": modules,
            "additionalProperties": false,
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "OpsPilot configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": generator.take_definitions(true),
    })
}

fn section<T: JsonSchema>(generator: &mut SchemaGenerator, properties: &mut Map<String, Json>, name: &str) {
    properties.insert(name.to_owned(), generator.subschema_for::<T>().to_value());
}

/// The module's own schema, with the key that every module has.
fn module(entry: &Entry, generator: &mut SchemaGenerator) -> Json {
    let schema = (entry.schema)(generator).to_value();
    let mut own = resolved(&schema, generator);
    let switch = json!({
        "type": "boolean",
        "default": entry.enabled_by_default,
        "description": "Whether the module runs.",
    });
    match own.as_object_mut() {
        Some(object) => {
            object.entry("type").or_insert_with(|| json!("object"));
            object.entry("description").or_insert_with(|| json!(entry.summary));
            if let Some(keys) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
                keys.insert("enabled".to_owned(), switch);
            }
            own
        }
        None => json!({ "type": "object", "properties": { "enabled": switch }, "additionalProperties": true }),
    }
}

/// A reference is replaced by what it refers to, because a key is added to it.
fn resolved(schema: &Json, generator: &SchemaGenerator) -> Json {
    let name = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name)).unwrap_or(schema).clone()
}
