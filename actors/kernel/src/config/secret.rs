//! A value that nobody may see.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A key, a password, a token: whoever prints, logs or serialises it gets [`Secret::SHOWN`].
///
/// A file writes it as it is, as `${ENV_NAME}` or as `file:/run/secrets/x`; what a module is given is
/// the value itself. Nothing says what a secret was, errors included.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What is shown in its place.
    pub const SHOWN: &str = "***";
    /// By this `format` a schema tells where secrets are.
    pub const FORMAT: &str = "secret";

    /// A secret that was made or read somewhere else.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The value, for the one who has to send it or to sign with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Secret::SHOWN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Secret::SHOWN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // serde would name what it found
        let text = Cow::<'de, str>::deserialize(deserializer).map_err(|_| D::Error::custom("a secret is text; put quotes around it"))?;
        Ok(Secret(text.into_owned()))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": Secret::FORMAT,
            "writeOnly": true,
            "title": "A secret: as it is, ${ENV_NAME}, or file:/run/secrets/x",
            "examples": ["${ENV_NAME}", "file:/run/secrets/x"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_written() {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        struct Config {
            key: Secret,
            more: Option<Secret>,
        }
        let config: Config = serde_json::from_value(serde_json::json!({ "key": "hunter2-hunter2", "more": null })).unwrap();
        assert_eq!(config.key.expose(), "hunter2-hunter2");
        assert_eq!(format!("{config:?} {config:#?}").matches("hunter2").count(), 0);
        assert_eq!(serde_json::to_string(&config).unwrap(), r#"{"key":"***","more":null}"#);
        let error = serde_json::from_value::<Config>(serde_json::json!({ "key": 4711 })).unwrap_err().to_string();
        assert!(error.contains("a secret is text") && !error.contains("4711"), "{error}");
    }
}
