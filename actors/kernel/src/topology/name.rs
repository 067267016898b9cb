//! What components are called, and which labels name one.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The characters of the longest name.
pub const MAX_NAME: usize = 256;

/// The text cannot be a component's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing stands there.
    #[error("a component needs a name")]
    Empty,
    /// Too much stands there.
    #[error("a component's name has at most 256 characters")]
    TooLong,
    /// Something stands there that nobody sees.
    #[error("a component's name has no control characters and no spaces at its ends")]
    Invisible,
}

/// A component's name, compared and kept exactly as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentName(Arc<str>);

impl ComponentName {
    /// The name `text`: 1 to 256 characters, none of them a control character, no space at an end.
    pub fn new(text: &str) -> Result<ComponentName, BadName> {
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        // a name of so few bytes need not be counted
        if text.len() > MAX_NAME && text.chars().nth(MAX_NAME).is_some() {
            return Err(BadName::TooLong);
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(BadName::Invisible);
        }
        Ok(ComponentName(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ComponentName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<ComponentName, BadName> {
        ComponentName::new(text)
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ComponentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for ComponentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ComponentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ComponentName, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        ComponentName::new(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for ComponentName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ComponentName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME, "examples": ["checkout"] })
    }
}

/// The names of labels whose value names the component that something is about, the most telling first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentLabels(Vec<String>);

impl ComponentLabels {
    /// The order where nothing is configured: services before what runs them, that before machines, parts of them last.
    pub const DEFAULT: [&str; 18] = [
        "service",
        "service_name",
        "app",
        "app_kubernetes_io_name",
        "component",
        "deployment",
        "statefulset",
        "daemonset",
        "job_name",
        "host",
        "hostname",
        "node",
        "instance",
        "pod",
        "container",
        "database",
        "queue",
        "device",
    ];

    /// These labels, in this order.
    pub fn new(names: Vec<String>) -> ComponentLabels {
        ComponentLabels(names)
    }

    /// The component that the first label with a usable name tells of.
    pub fn of<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Option<ComponentName> {
        self.0.iter().filter_map(|name| label(name)).find_map(|value| ComponentName::new(value).ok())
    }
}

impl Default for ComponentLabels {
    fn default() -> ComponentLabels {
        ComponentLabels(ComponentLabels::DEFAULT.map(str::to_owned).into())
    }
}
