//! What is wrong with a configuration, and where: all of it at once.

use std::fmt;

use serde::Serialize;

use super::secrets::Hidden;

/// Characters of a line that are shown.
const SHOWN: usize = 120;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line and a column of the file, both from 1.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag on the command line.
    Flag(&'static str),
    /// The file as a whole.
    Whole,
    /// Nobody wrote it: a default.
    Default,
}

impl Place {
    pub(super) const fn file(line: usize, column: usize) -> Place {
        Place::File { line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { line, column } => write!(f, "{line}:{column}"),
            Place::Variable(name) => write!(f, "environment variable {name}"),
            Place::Flag(name) => write!(f, "flag {name}"),
            Place::Whole => f.write_str("file"),
            Place::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it was written.
    pub place: Place,
    /// Where it stands in the configuration, as an RFC 6901 JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl Finding {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Finding {
        Finding { place, pointer: String::new(), message: message.into(), suggestion: None }
    }

    pub(super) fn at(place: Place, pointer: &str, message: impl Into<String>) -> Finding {
        Finding { pointer: pointer.to_owned(), ..Finding::new(place, message) }
    }

    pub(super) fn suggest(mut self, suggestion: impl Into<String>) -> Finding {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// A finding as the API returns it.
#[derive(Debug, Clone, Serialize)]
pub struct FindingView {
    /// JSON pointer.
    pub pointer: String,
    /// `line:column` of the file, or the variable or flag.
    pub place: String,
    /// The line, if it is in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, if it is in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub detail: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Everything that is wrong with one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file's name, as given.
    pub file: String,
    /// The problems, in the order of the file.
    pub findings: Vec<Finding>,
    text: String,
}

impl Report {
    /// Nothing of what `hidden` names is in it.
    pub(super) fn new(file: String, text: &str, findings: Vec<Finding>, hidden: &Hidden) -> Report {
        let mut findings: Vec<Finding> = findings.into_iter().map(|finding| hidden.finding(finding)).collect();
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        findings.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        Report { file, findings, text: hidden.source(text) }
    }

    /// The findings for the API.
    pub fn views(&self) -> Vec<FindingView> {
        self.findings
            .iter()
            .map(|finding| {
                let (line, column) = match finding.place {
                    Place::File { line, column } => (Some(line), Some(column)),
                    _ => (None, None),
                };
                FindingView {
                    pointer: finding.pointer.clone(),
                    place: finding.place.to_string(),
                    line,
                    column,
                    detail: finding.message.clone(),
                    suggestion: finding.suggestion.clone(),
                }
            })
            .collect()
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for finding in &self.findings {
            lines.push(self.described(finding));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl Report {
    /// The problem in one line, with the file's name if it is there.
    pub fn line(&self, finding: &Finding) -> String {
        match &finding.place {
            Place::File { line, column } => format!("{}:{line}:{column}: {}", self.file, finding.message),
            Place::Whole => format!("{}: {}", self.file, finding.message),
            other => format!("{other}: {}", finding.message),
        }
    }

    fn described(&self, finding: &Finding) -> String {
        let mut said = self.line(finding);
        if !finding.pointer.is_empty() {
            said.push_str(&format!(" (at {})", readable(&finding.pointer)));
        }
        if let Place::File { line, column } = finding.place
            && let Some(source) = self.text.lines().nth(line.saturating_sub(1))
        {
            let (shown, caret) = window(source, column);
            said.push_str(&format!("\n{line:>6} | {shown}\n       | {}^", " ".repeat(caret)));
            if let Some(suggestion) = &finding.suggestion {
                said.push_str(&format!(" {suggestion}"));
            }
        } else if let Some(suggestion) = &finding.suggestion {
            said.push_str(&format!("\n       = {suggestion}"));
        }
        said
    }
}

/// As much of a line as a terminal shows, with the place `column` in it; and how many cells stand before that place.
fn window(line: &str, column: usize) -> (String, usize) {
    let all: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let place = column.saturating_sub(1).min(all.len());
    let first = if all.len() <= SHOWN { 0 } else { place.saturating_sub(SHOWN / 2) };
    let cut = |from: usize, to: usize| all.get(from..to.min(all.len())).unwrap_or_default();
    let (start, end) = (if first > 0 { "…" } else { "" }, if all.len() > first + SHOWN { "…" } else { "" });
    let shown: String = start.chars().chain(cut(first, first + SHOWN).iter().copied()).chain(end.chars()).collect();
    (shown, start.chars().count() + cut(first, place).iter().map(|c| cells(*c)).sum::<usize>())
}

/// How wide a terminal shows a character.
fn cells(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' => 2,
        '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// A pointer as people read it: `/modules/detector.regex/rules/0/id` → `modules › detector.regex › rules › 0 › id`.
fn readable(pointer: &str) -> String {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>().join(" › ")
}

/// One key as part of a JSON pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_the_line_and_points_at_it() {
        let text = "server:\n  lisen: 1\n".to_owned();
        let finding = Finding::at(Place::file(2, 3), "/server/lisen", "unknown key `lisen`").suggest("did you mean `listen`?");
        let report = Report::new("ops.yaml".into(), &text, vec![finding.clone(), finding], &Hidden::default());
        assert_eq!(
            report.to_string(),
            "ops.yaml:2:3: unknown key `lisen` (at server › lisen)\n     2 |   lisen: 1\n       |   ^ did you mean `listen`?"
        );
        assert_eq!(report.views()[0].line, Some(2));
    }

    #[test]
    fn the_caret_points_at_the_place_however_long_or_wide_the_line_is() {
        let points_at = |line: &str, column: usize| {
            let (shown, caret) = window(line, column);
            let mut before = 0;
            let found = shown.chars().find(|c| {
                let here = before == caret;
                before += cells(*c);
                here
            });
            assert!(shown.chars().count() <= SHOWN + 2, "{shown}");
            found
        };
        let long: String = (0..400).map(|n| if n == 317 { 'X' } else { '-' }).collect();
        assert_eq!(points_at(&long, 318), Some('X'));
        assert!(window(&long, 318).0.starts_with('…') && window(&long, 318).0.ends_with('…'));
        assert_eq!(points_at("  titel: 日本語 X", 14), Some('X'));
        assert_eq!(points_at("a: ü X", 6), Some('X'));
        assert_eq!(window("a: b", 1), ("a: b".to_owned(), 0));
        assert_eq!(window("", 9), (String::new(), 0));
    }
}
