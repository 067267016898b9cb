//! The labels of an event: their limits, and that each name is given once.

use std::fmt;

use opspilot_kernel::codec::push_label;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{
    event::{Fields, Scratch, longer},
    problem::{Problem, shortened},
    scalar::{Got, Key, Scalar, Skip, Text},
};

/// `labels`: so many entries at most.
const LABELS: usize = 64;
/// A label's name: so many characters at most.
const LABEL_NAME: usize = 128;
/// A label's value: so many characters at most.
const LABEL_VALUE: usize = 1024;

/// Reads the labels straight into the form that records have.
pub(super) struct LabelMap<'r, 'de> {
    pub(super) scratch: &'r mut Scratch<'de>,
    pub(super) fields: &'r mut Fields<'de>,
    pub(super) depth: u8,
}

impl LabelMap<'_, '_> {
    #[cold]
    fn not_a_map<E>(self, got: &str) -> Result<(), E> {
        self.fields.wrong(|| Problem::new("wrong_type", "labels", format!("labels must be an object of strings, not {got}")));
        Ok(())
    }
}

/// Why a label is not acceptable.
fn label_problem(earlier: &[Text<'_>], name: &str, got: Got<'_>, scratch: &str) -> Option<Problem> {
    let problem = |code, detail: &str| Some(Problem::label(code, name, format!("label {}{detail}", shortened(name))));
    if earlier.iter().any(|earlier| earlier.of(scratch) == name) {
        return problem("duplicate_key", " is given twice");
    }
    if earlier.len() >= LABELS {
        return Some(Problem::new("too_many", "labels", "labels must have at most 64 entries"));
    }
    if name.is_empty() {
        return Some(Problem::new("required", "labels", "a label must have a name"));
    }
    if longer(name, LABEL_NAME) {
        return problem("too_long", " must be at most 128 characters long");
    }
    let Got::Text(value) = got else {
        let detail = if matches!(got, Got::Number(_)) { " must be a string; write the number in quotes" } else { " must be a string" };
        return problem("wrong_type", detail);
    };
    let escaped = matches!(value, Text::Unescaped(..));
    let value = value.of(scratch);
    if longer(value, LABEL_VALUE) {
        return problem("too_long", " must have a value of at most 1024 characters");
    }
    if (escaped && value.contains('\0')) || name.contains('\0') {
        return problem("nul", " must not hold a NUL character");
    }
    None
}

impl<'de> DeserializeSeed<'de> for LabelMap<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LabelMap<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let LabelMap { scratch, fields, depth } = self;
        let depth = depth + 1;
        while let Some(name) = map.next_key_seed(Key(&mut scratch.text))? {
            if fields.problem.is_some() {
                // nothing of this event is kept, so that a million labels cost no more than their bytes
                map.next_value_seed(Skip { depth })?;
                continue;
            }
            let got = map.next_value_seed(Scalar { scratch: &mut scratch.text, depth })?;
            let text = name.of(&scratch.text);
            match (label_problem(&scratch.names, text, got, &scratch.text), got) {
                (None, Got::Text(value)) => {
                    push_label(&mut scratch.labels, text, value.of(&scratch.text));
                    scratch.names.push(name);
                }
                (Some(problem), _) => fields.wrong(|| problem),
                (None, Got::Number(_) | Got::Null | Got::Other(_)) => {}
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Skip { depth: self.depth }.visit_seq(seq)?;
        self.not_a_map("an array")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.not_a_map("a string")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.not_a_map("a number")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.not_a_map("a number")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.not_a_map("a number")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.not_a_map("true or false")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
