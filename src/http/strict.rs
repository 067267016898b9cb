//! The gate every JSON body passes: no duplicate keys, no depth over 64, no more than 100,000 values.
//!
//! `serde_json` itself refuses invalid UTF-8, lone surrogates, control
//! characters, a byte order mark and numbers beyond `f64`; what it lets pass is
//! refused here, in one walk that keeps nothing but the keys of open objects.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep a body may nest.
pub const MAX_DEPTH: usize = 64;
/// How many values a body may hold.
pub const MAX_VALUES: usize = 100_000;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it is no JSON we take at all (400), or JSON that says something we do not take (422).
    pub malformed: bool,
    /// Where.
    pub pointer: String,
    /// What is wrong, for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

struct Walk<'a> {
    values: &'a Cell<usize>,
    depth: usize,
}

impl Walk<'_> {
    fn inner<E: serde::de::Error>(&self) -> Result<Walk<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("more than {MAX_DEPTH} levels deep")));
        }
        Ok(Walk { values: self.values, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let seen = self.values.get() + 1;
        if seen > MAX_VALUES {
            return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values")));
        }
        self.values.set(seen);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(self.inner()?)?;
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("the key {twice:?} stands there twice")));
            }
        }
        Ok(())
    }
}

/// Refuses what is not JSON as we take it.
pub fn gate(body: &[u8]) -> Result<(), Refusal> {
    let malformed = |detail: String| Refusal { malformed: true, pointer: String::new(), code: "malformed_json", detail };
    std::str::from_utf8(body).map_err(|error| malformed(format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let values = Cell::new(0);
    Walk { values: &values, depth: 0 }.deserialize(&mut reader).map_err(|error| malformed(error.to_string()))?;
    reader.end().map_err(|error| malformed(error.to_string()))
}

/// Reads a `T` from a body that must pass the gate.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    gate(body)?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer_of(error.path());
        let text = error.into_inner().to_string();
        let (code, detail) = explain(&text);
        Refusal { malformed: false, pointer, code, detail }
    })
}

/// The RFC 6901 form of a path.
fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let text = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&text);
    }
    pointer
}

/// What serde said, as a code and a sentence; an unknown field gets a suggestion.
pub(super) fn explain(text: &str) -> (&'static str, String) {
    let text = text.split(" at line ").next().unwrap_or(text);
    let mut quoted = text.split('`').skip(1).step_by(2);
    if text.starts_with("unknown field") || text.starts_with("unknown variant") {
        let field = text.starts_with("unknown field");
        let named = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        // a value may be a secret in the wrong place; the name of a field is repeated, a value never
        let what = if field { format!("{:?} is not known here", shortened(named)) } else { "this value is not known here".to_owned() };
        let detail = match opspilot_kernel::config::closest(named, known.iter().copied()) {
            Some(meant) => format!("{what}; did you mean {meant:?}?"),
            None if known.is_empty() => what,
            None => format!("{what}; known are {}", known.join(", ")),
        };
        (if field { "unknown_field" } else { "unknown_value" }, detail)
    } else if text.starts_with("missing field") {
        ("required", format!("{} is required", quoted.next().unwrap_or_default()))
    } else if text.starts_with("invalid type") || text.starts_with("invalid value") {
        // serde quotes the value it refused; a value may be a secret, so only what was expected is told
        let expected = text.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
        ("wrong_type", format!("expected {expected}"))
    } else {
        ("invalid", shortened(text))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read into")]
    struct Body {
        name: String,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read into")]
    struct Inner {
        value: u8,
    }

    #[test]
    fn h1_hostile_json_is_refused_as_malformed() {
        let deep = "[".repeat(100_000);
        let closed = format!("{}{}", "[".repeat(65), "]".repeat(65));
        let many = format!("[{}1]", "1,".repeat(MAX_VALUES));
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("100 k deep", deep.into_bytes()),
            ("65 deep", closed.into_bytes()),
            ("too many values", many.into_bytes()),
            ("1e400", b"1e400".to_vec()),
            ("NaN", b"NaN".to_vec()),
            ("Infinity", b"-Infinity".to_vec()),
            ("lone surrogate", br#""\ud800""#.to_vec()),
            ("invalid UTF-8", b"\"\xff\"".to_vec()),
            ("raw NUL", b"\"a\0b\"".to_vec()),
            ("byte order mark", b"\xef\xbb\xbf{}".to_vec()),
            ("duplicate key", br#"{"a":1,"a":2}"#.to_vec()),
            ("duplicate key by escape", br#"{"a":1,"\u0061":2}"#.to_vec()),
            ("nested duplicate key", br#"{"x":[{"a":1,"a":2}]}"#.to_vec()),
            ("trailing", b"{} {}".to_vec()),
            ("nothing", Vec::new()),
        ];
        for (name, body) in cases {
            let refusal = gate(&body).expect_err(name);
            assert!(refusal.malformed, "{name}: {refusal:?}");
        }
    }

    #[test]
    fn h1_odd_but_proper_json_passes_the_gate() {
        let closed = format!("{}{}", "[".repeat(64), "]".repeat(64));
        for body in ["-0", "18446744073709551616", "1e-400", r#""\u0000""#, r#"{"a":{"b":1},"b":{"b":1}}"#, closed.as_str()] {
            assert_eq!(gate(body.as_bytes()), Ok(()), "{body}");
        }
    }

    #[test]
    fn a_refusal_says_where_and_suggests() {
        let refusal = read::<Body>(br#"{"name":"x","list":[{"value":1},{"valeu":2}]}"#).unwrap_err();
        assert_eq!((refusal.malformed, refusal.code, refusal.pointer.as_str()), (false, "unknown_field", "/list/1/valeu"));
        assert!(refusal.detail.contains("did you mean \"value\""), "{}", refusal.detail);
        let refusal = read::<Body>(br#"{"list":[]}"#).unwrap_err();
        assert_eq!((refusal.code, refusal.detail.as_str()), ("required", "name is required"));
        let refusal = read::<Body>(br#"{"name":"x","list":[{"value":300}]}"#).unwrap_err();
        assert_eq!((refusal.code, refusal.pointer.as_str()), ("wrong_type", "/list/0/value"));
    }

    #[test]
    fn a_refusal_never_repeats_the_value() {
        let refusal = read::<Body>(br#"{"name":"x","list":"canary-secret"}"#).unwrap_err();
        assert!(!refusal.detail.contains("canary"), "{}", refusal.detail);
    }
}
