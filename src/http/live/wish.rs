//! What a client asks for: which events, and which of them.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use opspilot_kernel::{
    config::closest,
    event::{Envelope, Event, EventKind},
    ids::Seq,
    incident::IncidentStatus,
    signal::Severity,
};
use opspilot_runtime::EventKinds;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer as _, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::http::strict;

/// A message of a client.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
enum Message {
    Subscribe {
        #[serde(default, deserialize_with = "several")]
        events: Option<Vec<String>>,
        #[serde(default)]
        filter: Option<Filter>,
        #[serde(default)]
        after: Option<Seq>,
    },
    Unsubscribe {
        #[serde(default, deserialize_with = "several")]
        events: Option<Vec<String>>,
    },
    Ping {},
}

/// Which events pass. A condition says nothing of events that have no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[serde(default, deserialize_with = "several")]
    severity: Option<Vec<Severity>>,
    #[serde(default, deserialize_with = "several")]
    status: Option<Vec<IncidentStatus>>,
    #[serde(default, deserialize_with = "several")]
    source: Option<Vec<String>>,
    #[serde(default, deserialize_with = "several")]
    rule: Option<Vec<String>>,
    #[serde(default, deserialize_with = "several")]
    module: Option<Vec<String>>,
}

/// A list of names, or one name for a list of one; null is none.
fn several<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    struct Names<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of names, or one name")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![T::deserialize(name.into_deserializer())?]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(names)).map(Some)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Names(PhantomData))
}

impl Filter {
    fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    fn passes(&self, envelope: &Envelope) -> bool {
        fn holds<T: PartialEq>(wanted: Option<&Vec<T>>, is: &T) -> bool {
            wanted.is_none_or(|wanted| wanted.contains(is))
        }
        match &envelope.event {
            Event::IncidentCreated(incident) | Event::IncidentUpdated { incident, .. } => {
                holds(self.severity.as_ref(), &incident.severity)
                    && holds(self.status.as_ref(), &incident.status)
                    && holds(self.source.as_ref(), &incident.source)
                    && holds(self.rule.as_ref(), &incident.rule)
                    && holds(self.module.as_ref(), &incident.detected_by)
            }
            // only the first sources of a batch are named: what is not named may still be among them
            Event::LogIngested { sources, .. } => {
                self.source.as_ref().is_none_or(|wanted| sources.len() >= NAMED || sources.iter().any(|source| wanted.contains(source)))
            }
            Event::ModuleHealthChanged { module, .. } => holds(self.module.as_ref(), module),
            // what is about people's decisions is told to everybody who asked for it
            Event::EnrichmentCompleted { .. }
            | Event::ActionProposed(_)
            | Event::ActionApproved(_)
            | Event::ActionDenied(_)
            | Event::ActionExpired(_)
            | Event::ActionExecuted { .. }
            | Event::NotificationFailed { .. } => true,
        }
    }
}

/// How many sources an event names at most.
const NAMED: usize = 32;

/// What a client wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Subscribe { events: Vec<EventKind>, filter: Filter, after: Option<Seq> },
    Unsubscribe { events: Vec<EventKind> },
    Ping,
}

/// Why a message is not understood: for programs and for people.
pub(super) type Misunderstood = (String, String);

/// Reads a message.
pub(super) fn read(text: &str) -> Result<Wish, Misunderstood> {
    let message = strict::read::<Message>(text.as_bytes()).map_err(|refusal| {
        let place = if refusal.pointer.is_empty() { String::new() } else { format!(" at {}", refusal.pointer) };
        (refusal.code.to_owned(), format!("{}{place}", refusal.detail))
    })?;
    Ok(match message {
        Message::Ping {} => Wish::Ping,
        Message::Subscribe { events, filter, after } => {
            Wish::Subscribe { events: kinds(events)?, filter: filter.unwrap_or_default(), after }
        }
        Message::Unsubscribe { events } => Wish::Unsubscribe { events: kinds(events)? },
    })
}

/// The events named; all if none are.
fn kinds(names: Option<Vec<String>>) -> Result<Vec<EventKind>, Misunderstood> {
    let Some(names) = names else { return Ok(EventKind::ALL.to_vec()) };
    let kind = |name: &String| {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let shown: String = name.chars().filter(|character| !character.is_control()).take(64).collect();
            let known = EventKind::ALL.map(EventKind::as_str);
            let message = match closest(&shown, known) {
                Some(meant) => format!("there is no event {shown}; did you mean {meant}?"),
                None => format!("there is no event {shown}; there are {}", known.join(", ")),
            };
            ("unknown_event".to_owned(), message)
        })
    };
    names.iter().map(kind).collect()
}

/// What one client listens to: for each kind of event from where on, and which.
#[derive(Debug, Default)]
pub(super) struct Interest {
    wanted: BTreeMap<EventKind, Wanted>,
}

#[derive(Debug)]
struct Wanted {
    /// Nothing up to here is delivered (any more).
    after: Seq,
    filter: Filter,
}

impl Interest {
    /// Listens to these events from behind `after` on.
    pub(super) fn add(&mut self, events: &[EventKind], filter: &Filter, after: Seq) {
        for kind in events {
            self.wanted.insert(*kind, Wanted { after, filter: filter.clone() });
        }
    }

    /// Listens to these events no longer.
    pub(super) fn remove(&mut self, events: &[EventKind]) {
        for kind in events {
            self.wanted.remove(kind);
        }
    }

    /// Notes that everything up to `seq` was delivered, before the cursor goes back for one kind's sake.
    pub(super) fn delivered(&mut self, seq: Seq) {
        for wanted in self.wanted.values_mut() {
            wanted.after = wanted.after.max(seq);
        }
    }

    /// What is listened to.
    pub(super) fn events(&self) -> Vec<EventKind> {
        self.wanted.keys().copied().collect()
    }

    /// Whether anything is listened to.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether the event is to be delivered.
    pub(super) fn passes(&self, envelope: &Envelope) -> bool {
        let wanted = self.wanted.get(&envelope.event.kind());
        wanted.is_some_and(|wanted| envelope.seq > wanted.after && wanted.filter.passes(envelope))
    }

    /// The kinds of which everything behind `after` is delivered.
    pub(super) fn whole(&self, after: Seq) -> EventKinds {
        let is_whole = |wanted: &Wanted| wanted.after <= after && wanted.filter.is_empty();
        EventKinds::of(self.wanted.iter().filter(|(_, wanted)| is_whole(wanted)).map(|(kind, _)| *kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_one_kind_is_given_no_other_whole() {
        for wanted in EventKind::ALL {
            let mut interest = Interest::default();
            interest.add(&[wanted], &Filter::default(), 5);
            for kind in EventKind::ALL {
                assert_eq!(interest.whole(5).covers(EventKinds::of([kind])), kind == wanted, "{kind:?} for {wanted:?}");
                assert_eq!(interest.whole(5).covers(EventKinds::of([wanted, kind])), kind == wanted, "{kind:?} beside {wanted:?}");
            }
            assert!(!interest.whole(4).covers(EventKinds::of([wanted])), "some of it was delivered before");
        }
    }

    #[test]
    fn messages_are_understood() {
        assert_eq!(read(r#"{"action":"ping"}"#), Ok(Wish::Ping));
        assert_eq!(
            read(r#"{"action":"subscribe","events":["incident.created"],"filter":{"severity":["critical"]},"after":5}"#),
            Ok(Wish::Subscribe {
                events: vec![EventKind::IncidentCreated],
                filter: Filter { severity: Some(vec![Severity::Critical]), ..Filter::default() },
                after: Some(5)
            })
        );
        assert_eq!(
            read(r#"{"action":"subscribe"}"#),
            Ok(Wish::Subscribe { events: EventKind::ALL.to_vec(), filter: Filter::default(), after: None })
        );
        assert_eq!(
            read(r#"{"action":"subscribe","events":"incident.created","filter":{"severity":"critical","status":null}}"#),
            Ok(Wish::Subscribe {
                events: vec![EventKind::IncidentCreated],
                filter: Filter { severity: Some(vec![Severity::Critical]), ..Filter::default() },
                after: None
            }),
            "one name is a list of one"
        );
        assert_eq!(
            read(r#"{"action":"subscribe","events":null,"filter":null,"after":null}"#),
            read(r#"{"action":"subscribe"}"#),
            "null is as good as nothing"
        );
        assert_eq!(read(r#"{"action":"unsubscribe","events":[]}"#), Ok(Wish::Unsubscribe { events: vec![] }));
    }

    #[test]
    fn what_is_not_understood_is_said_with_a_suggestion() {
        for (text, code, part) in [
            ("", "malformed_json", "EOF"),
            ("{}", "required", "action"),
            (r#"{"action":"subscribe","events":["incident.create"]}"#, "unknown_event", "did you mean incident.created?"),
            (r#"{"action":"subscribe","events":["x"]}"#, "unknown_event", "module.health_changed"),
            (r#"{"action":"subscribe","evnts":[]}"#, "unknown_field", "events"),
            (r#"{"action":"subscribe","filter":{"severty":["critical"]}}"#, "unknown_field", "severity"),
            (r#"{"action":"subscribe","filter":{"severity":["crit"]}}"#, "unknown_value", ""),
            (r#"{"action":"subscribe","filter":{"severity":"crit"}}"#, "unknown_value", ""),
            (r#"{"action":"subscribe","filter":{"severity":5}}"#, "wrong_type", "a list of names, or one name"),
            (r#"{"action":"subscribe","after":-1}"#, "wrong_type", ""),
            (r#"{"action":"subscrbe"}"#, "unknown_value", "subscribe"),
            (r#"{"action":"ping","action":"ping"}"#, "malformed_json", "twice"),
        ] {
            let (got, message) = read(text).expect_err(text);
            assert_eq!(got, code, "{text}: {message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
