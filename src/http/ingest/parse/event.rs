//! One event: its fields, their limits, and what it needs to be acceptable.

use std::fmt;

use opspilot_kernel::{
    codec::Labels,
    config::closest,
    signal::{AlertState, Severity, SignalKind, SignalRef},
    time::Timestamp,
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{
    Parsed,
    field::{ALIASES, Field},
    labels::LabelMap,
    problem::{Malformed, Problem, shortened},
    scalar::{Got, Key, Scalar, Skip, Text},
};
use crate::http::idempotency::RESERVED_ID;

/// `source`: so many characters at most.
const SOURCE: usize = 256;
/// Takes events one after the other and keeps count.
pub(super) struct Reader<'s, 'de> {
    received_at: Timestamp,
    sink: &'s mut dyn FnMut(&SignalRef<'_>),
    scratch: Scratch<'de>,
    parsed: Parsed,
}

/// Memory that one event after the other uses, so that an event allocates nothing.
#[derive(Default)]
pub(super) struct Scratch<'de> {
    /// Strings that had escapes.
    pub(super) text: String,
    /// Labels, as a record holds them.
    pub(super) labels: Vec<u8>,
    pub(super) names: Vec<Text<'de>>,
}

impl<'s, 'de> Reader<'s, 'de> {
    pub(super) fn new(received_at: Timestamp, sink: &'s mut dyn FnMut(&SignalRef<'_>)) -> Reader<'s, 'de> {
        Reader { received_at, sink, scratch: Scratch::default(), parsed: Parsed::default() }
    }

    pub(super) fn finish(self) -> Parsed {
        self.parsed
    }

    /// An event of which nothing is read yet.
    pub(super) fn fields(&self) -> Fields<'de> {
        Fields { untold: self.parsed.rejected.is_full(), ..Fields::default() }
    }

    /// The scratch memory, emptied for the next event.
    pub(super) fn scratch(&mut self) -> &mut Scratch<'de> {
        self.scratch.text.clear();
        self.scratch.labels.clear();
        self.scratch.names.clear();
        &mut self.scratch
    }

    /// Decides on an event that was read to its end.
    pub(super) fn settle(&mut self, fields: &mut Fields<'de>) {
        let index = self.parsed.events;
        self.parsed.events = index.saturating_add(1);
        let settled = match fields.problem.take() {
            Some(problem) => Err(*problem),
            None => fields.signal(&self.scratch, self.received_at),
        };
        match settled {
            Ok(signal) => {
                (self.sink)(&signal);
                self.parsed.accepted = self.parsed.accepted.saturating_add(1);
            }
            Err(problem) => self.parsed.rejected.add(index, problem),
        }
    }

    /// Counts a line that could not be read.
    pub(super) fn reject_line(&mut self, number: usize, malformed: Malformed) {
        let index = self.parsed.events;
        self.parsed.events = index.saturating_add(1);
        self.parsed.rejected.add_line(index, number, malformed);
    }
}

/// What was read of an event so far.
#[derive(Default)]
pub(super) struct Fields<'de> {
    seen: u16,
    source: Text<'de>,
    message: Text<'de>,
    name: Text<'de>,
    unit: Text<'de>,
    fingerprint: Text<'de>,
    title: Text<'de>,
    description: Text<'de>,
    id: Text<'de>,
    kind: Option<SignalKind>,
    severity: Severity,
    state: AlertState,
    at: Option<Timestamp>,
    value: Option<f64>,
    /// The first thing that is wrong with it.
    pub(super) problem: Option<Box<Problem>>,
    /// Whether the answer has no room to say what is wrong; then nobody need work out what was meant.
    untold: bool,
}

impl<'de> Fields<'de> {
    /// Notes what is wrong unless something else is already: a sender of a million mistakes is told one.
    #[cold]
    pub(super) fn wrong(&mut self, problem: impl FnOnce() -> Problem) {
        if self.problem.is_none() {
            self.problem = Some(Box::new(problem()));
        }
    }

    #[cold]
    fn wrong_type(&mut self, field: Field, wanted: &str, got: Got<'_>) {
        let got = match got {
            Got::Text(_) => "a string",
            Got::Number(_) => "a number",
            Got::Null => "null",
            Got::Other(name) => name,
        };
        self.wrong(|| Problem::new("wrong_type", field.name(), format!("{} must be {wanted}, not {got}", field.name())));
    }

    #[cold]
    fn unknown(&mut self, name: &str) {
        if self.problem.is_some() {
            return;
        }
        let known = Field::ALL.iter().map(|(_, name)| *name);
        let meant = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, meant)| *meant);
        let meant = meant.or_else(|| if name.len() > 64 || self.untold { None } else { closest(name, known) });
        let name = shortened(name);
        let detail = match meant {
            Some(meant) => format!("unknown field {name}; did you mean {meant}?"),
            None => format!("unknown field {name}; put what you want to keep under labels"),
        };
        self.wrong(|| Problem::new("unknown_field", &name, detail));
    }

    fn set(&mut self, field: Field, got: Got<'de>, scratch: &str) {
        if matches!(got, Got::Null) {
            return;
        }
        if field == Field::Value {
            return match got {
                Got::Number(number) if number.is_finite() => self.value = Some(number),
                Got::Number(_) => self.wrong(|| Problem::new("not_finite", "value", "value must be finite")),
                Got::Text(_) | Got::Null | Got::Other(_) => self.wrong_type(field, "a number", got),
            };
        }
        let Got::Text(text) = got else { return self.wrong_type(field, "a string", got) };
        let string = text.of(scratch);
        // the bare byte is no JSON, so that only what was escaped can hold it
        if matches!(text, Text::Unescaped(..)) && memchr::memchr(0, string.as_bytes()).is_some() {
            return self.wrong(|| Problem::new("nul", field.name(), format!("{} must not hold a NUL character", field.name())));
        }
        match field {
            Field::Source => {
                if longer(string, SOURCE) {
                    return self.wrong(|| Problem::new("too_long", "source", "source must be at most 256 characters"));
                }
                self.source = text;
            }
            Field::Message => self.message = text,
            Field::Name => self.name = text,
            Field::Unit => self.unit = text,
            Field::Fingerprint => self.fingerprint = text,
            Field::Title => self.title = text,
            Field::Description => self.description = text,
            Field::Id if string.starts_with(RESERVED_ID) => {
                self.wrong(|| {
                    Problem::new("reserved", "id", format!("id must not begin with {RESERVED_ID}, which the service itself uses"))
                });
            }
            Field::Id => self.id = text,
            Field::Timestamp => match string.parse() {
                Ok(at) => self.at = Some(at),
                Err(error) => self.wrong(|| Problem::new("invalid_timestamp", "timestamp", format!("{error}"))),
            },
            Field::Severity => match string.parse() {
                Ok(severity) => self.severity = severity,
                Err(_) => self.choice(field, string, &Severity::ALL.map(Severity::as_str)),
            },
            Field::Kind => match string {
                "log" => self.kind = Some(SignalKind::Log),
                "metric" => self.kind = Some(SignalKind::Metric),
                "alert" => self.kind = Some(SignalKind::Alert),
                _ => self.choice(field, string, &["log", "metric", "alert"]),
            },
            Field::Status => match string {
                "firing" => self.state = AlertState::Firing,
                "resolved" => self.state = AlertState::Resolved,
                _ => self.choice(field, string, &["firing", "resolved"]),
            },
            Field::Value | Field::Labels => {}
        }
    }

    #[cold]
    fn choice(&mut self, field: Field, got: &str, known: &[&str]) {
        if self.problem.is_some() {
            return;
        }
        let meant = if got.len() > 64 || self.untold { None } else { closest(got, known.iter().copied()) };
        let mut detail = format!("{} must be one of {}, not {}", field.name(), known.join(", "), shortened(got));
        if let Some(meant) = meant {
            detail.push_str("; did you mean ");
            detail.push_str(meant);
            detail.push('?');
        }
        self.wrong(|| Problem::new("invalid_value", field.name(), detail));
    }

    /// The signal that the fields make, if they make one.
    fn signal<'a>(&self, scratch: &'a Scratch<'de>, received_at: Timestamp) -> Result<SignalRef<'a>, Problem>
    where
        'de: 'a,
    {
        let text = |text: Text<'de>| text.of(&scratch.text);
        let required = |field: Field, why: &str| Problem::new("required", field.name(), format!("{} is required{why}", field.name()));
        let kind = self.kind.unwrap_or(if self.value.is_some() { SignalKind::Metric } else { SignalKind::Log });
        let signal = SignalRef {
            kind,
            severity: self.severity,
            state: self.state,
            at: self.at.unwrap_or(received_at),
            source: text(self.source),
            message: text(self.message),
            name: text(self.name),
            value: self.value,
            unit: text(self.unit),
            fingerprint: text(self.fingerprint),
            title: text(self.title),
            description: text(self.description),
            id: text(self.id),
            labels: Labels::Encoded(&scratch.labels),
        };
        if signal.source.is_empty() {
            return Err(required(Field::Source, ""));
        }
        match kind {
            SignalKind::Log if signal.message.is_empty() => Err(required(Field::Message, " for a log")),
            SignalKind::Metric if signal.name.is_empty() => Err(required(Field::Name, " for a metric")),
            SignalKind::Metric if signal.value.is_none() => Err(required(Field::Value, " for a metric")),
            SignalKind::Log | SignalKind::Metric | SignalKind::Alert => Ok(signal),
        }
    }
}

/// Whether the text has more than `limit` characters; counts them only if it might.
pub(super) fn longer(text: &str, limit: usize) -> bool {
    text.len() > limit && text.chars().count() > limit
}

/// Reads a whole body: an event or an array of events.
pub(super) struct Body<'r, 's, 'de>(pub(super) &'r mut Reader<'s, 'de>);

impl<'de> DeserializeSeed<'de> for Body<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event or an array of events")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let mut fields = self.0.fields();
        Event { scratch: self.0.scratch(), fields: &mut fields, depth: 1 }.visit_map(map)?;
        self.0.settle(&mut fields);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let mut fields = self.0.fields();
            let event = Event { scratch: self.0.scratch(), fields: &mut fields, depth: 2 };
            if seq.next_element_seed(event)?.is_none() {
                return Ok(());
            }
            self.0.settle(&mut fields);
        }
    }
}

/// Reads one event into `fields`.
pub(super) struct Event<'r, 'de> {
    pub(super) scratch: &'r mut Scratch<'de>,
    pub(super) fields: &'r mut Fields<'de>,
    /// How many containers its fields stand in.
    pub(super) depth: u8,
}

impl Event<'_, '_> {
    #[cold]
    fn not_an_object<E>(self, got: &str) -> Result<(), E> {
        self.fields.wrong(|| Problem::new("wrong_type", "", format!("an event must be an object, not {got}")));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Event<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Event<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Event { scratch, fields, depth } = self;
        while let Some(name) = map.next_key_seed(Key(&mut scratch.text))? {
            let name = name.of(&scratch.text);
            let Some(field) = Field::named(name) else {
                fields.unknown(name);
                map.next_value_seed(Skip { depth })?;
                continue;
            };
            if fields.seen & field.bit() != 0 {
                fields.wrong(|| Problem::new("duplicate_key", field.name(), format!("{} is given twice", field.name())));
            }
            fields.seen |= field.bit();
            if field == Field::Labels {
                map.next_value_seed(LabelMap { scratch: &mut *scratch, fields: &mut *fields, depth })?;
            } else {
                let got = map.next_value_seed(Scalar { scratch: &mut scratch.text, depth })?;
                fields.set(field, got, &scratch.text);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Skip { depth: self.depth - 1 }.visit_seq(seq)?;
        self.not_an_object("an array")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.not_an_object("a string")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.not_an_object("true or false")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.not_an_object("null")
    }
}
