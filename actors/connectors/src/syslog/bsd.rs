//! RFC 3164 and its relatives.

use super::{Form, Message, Offset, Years, time};

/// A longer tag is a sentence.
const TAG: usize = 128;

/// What stands behind the priority; none if it does not begin with a time.
pub(super) fn read<'a>(text: &'a str, years: &mut Years, offset: Offset) -> Option<Message<'a>> {
    // routers put a mark before times that they are not sure of
    let bare = text.strip_prefix(['*', '.']).unwrap_or(text);
    let (at, behind) = time::begin(bare, years, offset)?;
    // `Oct 11 22:14:15: message`, as some devices write
    let behind = behind.strip_prefix(':').unwrap_or(behind);
    let rest = behind.strip_prefix(' ')?.trim_start_matches(' ');
    let bare = |text| Message { form: Form::Bsd, at: Some(at), text, ..Message::raw("") };
    if let Some((app, pid, text)) = tagged(rest) {
        return Some(Message { app, pid, ..bare(text) });
    }
    let Some((host, rest)) = rest.split_once(' ') else { return Some(bare(rest)) };
    if !is_host(host) {
        return Some(bare(behind.trim_start_matches(' ')));
    }
    let rest = rest.trim_start_matches(' ');
    match tagged(rest) {
        Some((app, pid, text)) => Some(Message { host, app, pid, ..bare(text) }),
        None => Some(Message { host, ..bare(rest) }),
    }
}

/// `TAG: MSG`, `TAG[PID]: MSG`: the program, its process and what it says.
fn tagged(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find([':', ' ', '['])?;
    let (app, rest) = text.split_at_checked(end).filter(|(app, _)| !app.is_empty() && app.len() <= TAG)?;
    let (pid, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']').filter(|(pid, _)| pid.len() <= TAG && !pid.contains(' '))?,
        None => ("", rest),
    };
    let text = rest.strip_prefix(':')?;
    // a path or an address has a colon too, but no space behind it
    if !(text.is_empty() || text.starts_with(' ')) {
        return None;
    }
    Some((app, pid, text.strip_prefix(' ').unwrap_or(text)))
}

/// Host names and addresses; anything else is the beginning of a sentence.
fn is_host(text: &str) -> bool {
    text.len() <= 255 && text.chars().all(|char| char.is_alphanumeric() || "._-:%/@".contains(char))
}
