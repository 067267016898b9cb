//! What the feed says, as frames.

use actix_web::web::{BufMut as _, Bytes, BytesMut};
use opspilot_kernel::{
    event::{Envelope, EventKind},
    ids::Seq,
};
use serde::Serialize;

use super::frame;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'a> {
    #[serde(rename_all = "camelCase")]
    Welcome {
        client_id: &'a str,
        subscribable_events: &'static [EventKind],
        last_seq: Seq,
    },
    Subscribed {
        events: &'a [EventKind],
    },
    Event {
        #[serde(flatten)]
        envelope: &'a Envelope,
    },
    Pong,
    ResyncRequired {
        from: Seq,
    },
    Error {
        code: &'a str,
        message: &'a str,
    },
}

fn put(out: &mut BytesMut, said: &Said<'_>) {
    let mut text = BytesMut::new().writer();
    // nothing here has a form that JSON lacks
    if serde_json::to_writer(&mut text, said).is_ok() {
        frame::put_text(out, text.get_ref());
    }
}

/// One frame by itself.
fn one(said: &Said<'_>) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out, said);
    out.freeze()
}

/// Appends an event.
pub(super) fn event(out: &mut BytesMut, envelope: &Envelope) {
    put(out, &Said::Event { envelope });
}

/// The first thing that is said.
pub(super) fn welcome(client_id: &str, last_seq: Seq) -> Bytes {
    one(&Said::Welcome { client_id, subscribable_events: &EventKind::ALL, last_seq })
}

/// What the client now listens to.
pub(super) fn subscribed(events: &[EventKind]) -> Bytes {
    one(&Said::Subscribed { events })
}

/// The answer to a ping that is a message.
pub(super) fn pong() -> Bytes {
    one(&Said::Pong)
}

/// Something between what was delivered and what follows is missing; what follows begins behind `from`.
pub(super) fn resync_required(from: Seq) -> Bytes {
    one(&Said::ResyncRequired { from })
}

/// What was asked for is not understood.
pub(super) fn error(code: &str, message: &str) -> Bytes {
    one(&Said::Error { code, message })
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{event::Event, module::ModuleStatus, time::Timestamp};

    use super::*;

    fn text(frame: &[u8]) -> String {
        let skip = if frame[1] == 126 { 4 } else { 2 };
        String::from_utf8(frame[skip..].to_vec()).unwrap()
    }

    #[test]
    fn messages_look_as_the_contract_says() {
        assert_eq!(
            text(&welcome("cli_1", 7)),
            r#"{"type":"welcome","clientId":"cli_1","subscribableEvents":["log.ingested","incident.created","incident.updated","enrichment.completed","action.proposed","action.approved","action.denied","action.expired","action.executed","notification.failed","module.health_changed"],"lastSeq":7}"#
        );
        assert_eq!(text(&subscribed(&[EventKind::IncidentCreated])), r#"{"type":"subscribed","events":["incident.created"]}"#);
        assert_eq!(text(&pong()), r#"{"type":"pong"}"#);
        assert_eq!(text(&resync_required(5)), r#"{"type":"resync_required","from":5}"#);
        assert_eq!(text(&error("x", "y")), r#"{"type":"error","code":"x","message":"y"}"#);
        let changed = Event::ModuleHealthChanged {
            module: "detector.regex".to_owned(),
            from: ModuleStatus::Healthy,
            to: ModuleStatus::Failed,
            detail: "d".to_owned(),
        };
        let mut out = BytesMut::new();
        event(&mut out, &Envelope { seq: 3, at: Timestamp::ZERO, event: changed });
        assert_eq!(
            text(&out),
            r#"{"type":"event","seq":3,"at":"1970-01-01T00:00:00.000Z","eventType":"module.health_changed","data":{"module":"detector.regex","from":"healthy","to":"failed","detail":"d"}}"#
        );
    }
}
