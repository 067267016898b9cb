//! Reads one JSON value that should be a string or a number, and steps over what should not be there.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::problem::TOO_DEEP;

/// How deeply a body may nest.
pub(super) const DEPTH: u8 = 64;

/// A string: a part of the body, or, when it had escapes, a part of the scratch text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Text<'de> {
    #[default]
    None,
    Borrowed(&'de str),
    Unescaped(usize, usize),
}

impl<'de> Text<'de> {
    /// The string itself; one that was not given is empty.
    pub(super) fn of<'a>(self, scratch: &'a str) -> &'a str
    where
        'de: 'a,
    {
        match self {
            Text::None => "",
            Text::Borrowed(text) => text,
            Text::Unescaped(from, to) => scratch.get(from..to).unwrap_or_default(),
        }
    }

    fn unescaped(text: &str, scratch: &mut String) -> Text<'de> {
        let from = scratch.len();
        scratch.push_str(text);
        Text::Unescaped(from, scratch.len())
    }
}

/// A value that stood where a string or a number should.
#[derive(Debug, Clone, Copy)]
pub(super) enum Got<'de> {
    Text(Text<'de>),
    Number(f64),
    /// `null`: as if it were not there.
    Null,
    /// Something else, by name.
    Other(&'static str),
}

/// Reads a [`Got`].
pub(super) struct Scalar<'a> {
    pub(super) scratch: &'a mut String,
    /// How many containers it stands in.
    pub(super) depth: u8,
}

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = Got<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Got<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = Got<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Got<'de>, E> {
        Ok(Got::Text(Text::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Got<'de>, E> {
        Ok(Got::Text(Text::unescaped(text, self.scratch)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Got<'de>, E> {
        Ok(Got::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Got<'de>, E> {
        Ok(Got::Number(float(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Got<'de>, E> {
        let magnitude = float(number.unsigned_abs());
        Ok(Got::Number(if number < 0 { -magnitude } else { magnitude }))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Got<'de>, E> {
        Ok(Got::Other("true or false"))
    }

    fn visit_unit<E: Error>(self) -> Result<Got<'de>, E> {
        Ok(Got::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Got<'de>, A::Error> {
        Skip { depth: self.depth }.visit_seq(seq)?;
        Ok(Got::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Got<'de>, A::Error> {
        Skip { depth: self.depth }.visit_map(map)?;
        Ok(Got::Other("an object"))
    }
}

/// The nearest double: the upper half is exact, and the sum rounds once.
fn float(number: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX));
    half(number >> 32) * 4_294_967_296.0 + half(number)
}

/// Reads a key.
pub(super) struct Key<'a>(pub(super) &'a mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Text<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text::unescaped(text, self.0))
    }
}

/// Steps over a value, however large, without keeping anything; refuses one that nests too deeply.
pub(super) struct Skip {
    /// How many containers the value stands in.
    pub(super) depth: u8,
}

impl Skip {
    fn deeper<E: Error>(&self) -> Result<u8, E> {
        if self.depth >= DEPTH { Err(E::custom(TOO_DEEP)) } else { Ok(self.depth + 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while seq.next_element_seed(Skip { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Skip { depth })?;
        }
        Ok(())
    }
}
