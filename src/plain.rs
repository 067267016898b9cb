//! Text from outside, made safe for a terminal or a log.

use std::borrow::Cow;

/// Whether a character can move the cursor, colour, reorder or hide what a person reads.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with every such character written out, as `\u{1b}`, `\n`, `\t`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The text without them; lines and tabs become spaces.
pub fn stripped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let kept = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' => Some(' '),
        c if is_unsafe(c) => None,
        c => Some(c),
    });
    Cow::Owned(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2_nothing_that_drives_a_terminal_is_left() {
        let hostile = "a\r\nfake line\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{202e}evil\u{0}\u{9b}31m";
        for safe in [escaped(hostile), stripped(hostile)] {
            assert!(!safe.contains(is_unsafe), "{safe:?}");
            assert!(safe.contains("fake line") && safe.contains("evil"));
        }
        assert_eq!(escaped("grün ✓"), "grün ✓");
        assert_eq!(escaped("a\nb"), "a\\nb");
        assert_eq!(stripped("a\nb\u{1b}"), "a b");
    }
}
