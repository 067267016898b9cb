//! Titles with names in them: `Payments failing (order $order)`.
//!
//! `$name` and `$1` take the longest run of letters, digits and underscores;
//! `${name}` ends where it says; `$$` is a dollar sign, as is a `$` before anything else.

use crate::evidence::cut;

/// A rendered title is cut at this many bytes.
pub(crate) const TITLE_BYTES: usize = 256;
/// A rendered description is cut at this many bytes.
pub(crate) const DESCRIPTION_BYTES: usize = 4096;

/// A text with names that are replaced by values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// A `${` that is never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("'${{' at column {0} is never closed; write $$ for a dollar sign")]
pub(crate) struct Unclosed(pub(crate) usize);

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Template, Unclosed> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            let column = text.len() - after.len();
            let (name, behind) = if let Some(inner) = after.strip_prefix('{') {
                inner.split_once('}').ok_or(Unclosed(column))?
            } else {
                let end = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                after.split_at_checked(end).unwrap_or((after, ""))
            };
            if name.is_empty() {
                plain.push('$');
                rest = behind.strip_prefix('$').unwrap_or(behind);
                continue;
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    /// The names in it, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with every name replaced by what `value` appends for it, cut at `limit` bytes. Where that is nothing
    /// between two spaces, one of them is left out, too.
    pub(crate) fn render(&self, limit: usize, mut value: impl FnMut(&str, &mut String)) -> String {
        let mut text = String::new();
        let mut is_missing = false;
        for part in &self.0 {
            match part {
                Part::Text(plain) if is_missing && text.ends_with(' ') => text.push_str(plain.strip_prefix(' ').unwrap_or(plain)),
                Part::Text(plain) => text.push_str(plain),
                Part::Name(name) => {
                    let before = text.len();
                    value(name, &mut text);
                    is_missing = text.len() == before;
                }
            }
        }
        match cut(&text, limit) {
            whole if whole.len() == text.len() => text,
            kept => format!("{kept}…"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        Template::parse(text).unwrap().render(TITLE_BYTES, |name, out| {
            out.push('<');
            out.push_str(name);
            out.push('>');
        })
    }

    #[test]
    fn names_are_found_in_every_form_and_dollars_survive() {
        for (text, expected) in [
            ("Payments failing (order $order)", "Payments failing (order <order>)"),
            ("${order}s and $1", "<order>s and <1>"),
            ("costs $$5, or $ 5, or 5$", "costs $5, or $ 5, or 5$"),
            ("$a$b", "<a><b>"),
            ("", ""),
            ("ünï $wörd", "ünï <w>örd"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
        }
        assert_eq!(Template::parse("ab ${x"), Err(Unclosed(4)));
    }

    #[test]
    fn what_is_missing_leaves_no_gap() {
        let rendered =
            |text| Template::parse(text).unwrap().render(TITLE_BYTES, |name, out| out.push_str(if name == "a" { "x" } else { "" }));
        assert_eq!(rendered("Disk ${mount} nearly full"), "Disk nearly full");
        assert_eq!(rendered("Disk ${mount}, $a  or ($mount)"), "Disk , x  or ()");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let text = Template::parse("$v").unwrap().render(5, |_, out| out.push_str("aééé"));
        assert_eq!(text, "aéé…");
    }
}
