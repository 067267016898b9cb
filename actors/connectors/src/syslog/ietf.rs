//! RFC 5424.

use std::borrow::Cow;

use opspilot_kernel::time::Timestamp;

use super::{Form, Message, word};

/// More parameters of structured data than this are not kept: a signal has at most 64 labels.
const PARAMETERS: usize = 48;

/// What stands behind the priority, from the version on; none if it is not of this form.
pub(super) fn read(text: &str) -> Option<Message<'_>> {
    let (version, rest) = text.split_once(' ')?;
    let counts = (1..=3).contains(&version.len()) && !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
    if !counts {
        return None;
    }
    let (time, rest) = rest.split_once(' ')?;
    let at = if time == "-" { None } else { Some(moment(time)?) };
    let (host, rest) = rest.split_once(' ')?;
    let (app, rest) = rest.split_once(' ')?;
    let (pid, rest) = rest.split_once(' ')?;
    // some write nothing at all where there is neither data nor a message
    let (kind, rest) = word(rest);
    let fields = [(host, 255), (app, 48), (pid, 128), (kind, 32)];
    // senders are longer than they may be; what is empty is not of this form
    if fields.iter().any(|(field, most)| field.is_empty() || field.len() > most * 4) {
        return None;
    }
    let (data, rest) = if rest.is_empty() { (Vec::new(), "") } else { data(rest)? };
    let text = rest.strip_prefix(' ').unwrap_or(rest);
    let [host, app, pid, kind] = fields.map(|(field, _)| if field == "-" { "" } else { field });
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(Message { form: Form::Ietf, at, host, app, pid, kind, data, text, ..Message::raw("") })
}

fn moment(text: &str) -> Option<Timestamp> {
    // RFC 3339 with a capital T; a space would have ended the field
    (text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T')).then(|| text.parse().ok())?
}

type Data<'a> = Vec<(String, Cow<'a, str>)>;

/// Structured data, and what is behind it.
fn data(text: &str) -> Option<(Data<'_>, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return (rest.is_empty() || rest.starts_with(' ')).then(|| (Vec::new(), rest));
    }
    let mut found = Vec::new();
    let mut rest = text.strip_prefix('[')?;
    loop {
        let end = rest.find([' ', ']', '=', '"'])?;
        let (id, behind) = rest.split_at_checked(end).filter(|(id, _)| !id.is_empty())?;
        rest = behind;
        while let Some(more) = rest.strip_prefix(' ') {
            let (name, quoted) = more.split_once("=\"").filter(|(name, _)| is_name(name))?;
            let (value, behind) = value(quoted)?;
            if found.len() < PARAMETERS {
                found.push((format!("{id}.{name}"), value));
            }
            rest = behind;
        }
        rest = rest.strip_prefix(']')?;
        match rest.strip_prefix('[') {
            Some(next) => rest = next,
            None => return (rest.is_empty() || rest.starts_with(' ')).then_some((found, rest)),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', ']', '=', '"'])
}

/// A value up to its closing quote, with `\"`, `\\` and `\]` as what they stand for, and what is behind it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut plain: Option<String> = None;
    let mut from = 0;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                let last = text.get(from..at)?;
                let value = plain.map_or(Cow::Borrowed(last), |plain| Cow::Owned(plain + last));
                return Some((value, text.get(at + 1..)?));
            }
            '\\' => {
                let (next, escaped) = chars.next()?;
                // a backslash before anything else stands for itself
                if matches!(escaped, '"' | '\\' | ']') {
                    plain.get_or_insert_default().push_str(text.get(from..at)?);
                    from = next;
                }
            }
            _ => {}
        }
    }
    None
}
