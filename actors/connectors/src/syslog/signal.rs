//! What a message is as a signal.

use opspilot_kernel::{
    codec::push_label,
    signal::{Severity, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{FACILITIES, Form, Message};
use crate::file_tail::interpret;

/// What a signal may hold: characters of its source, of a label's name and of a label's value.
const SOURCE: usize = 256;
const NAME: usize = 128;
const VALUE: usize = 1024;

/// The message as a log signal. Its source is the program, else the machine, else `fallback`; machine, process and structured
/// data are labels. Without a priority its severity is guessed from the text. `labels` is memory for the labels.
///
/// A message that names no time is of `at`. One that could not be read bears the label `parse_error`.
pub fn signal<'a>(message: &'a Message<'a>, at: Timestamp, fallback: &'a str, labels: &'a mut Vec<u8>) -> SignalRef<'a> {
    labels.clear();
    let facility = message.facility.and_then(|facility| FACILITIES.get(usize::from(facility))).copied().unwrap_or_default();
    let error = if message.form == Form::Raw { "no syslog line" } else { "" };
    let host = if message.app.is_empty() && !message.host.is_empty() { "" } else { message.host };
    let own = [("facility", facility), ("host", host), ("pid", message.pid), ("msgid", message.kind), ("parse_error", error)];
    for (name, value) in own.into_iter().filter(|(_, value)| !value.is_empty()) {
        push_label(labels, name, cut(value, VALUE));
    }
    for (name, value) in &message.data {
        // a name may be given twice; a label may not
        if !message.data.iter().take_while(|(other, _)| !std::ptr::eq(other, name)).any(|(other, _)| other == name) {
            push_label(labels, cut(name, NAME), cut(value, VALUE));
        }
    }
    let source = [message.app, message.host].into_iter().find(|name| !name.is_empty()).unwrap_or(fallback);
    let text = if message.text.is_empty() { [message.kind, "-"].into_iter().find(|text| !text.is_empty()) } else { Some(message.text) };
    let severity = message.severity.or_else(|| interpret::severity(message.text)).unwrap_or(Severity::Info);
    SignalRef {
        severity,
        message: text.unwrap_or("-"),
        labels: opspilot_kernel::codec::Labels::Encoded(labels),
        ..SignalRef::bare(SignalKind::Log, message.at.unwrap_or(at), cut(source, SOURCE))
    }
}

/// The first `most` characters.
fn cut(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
