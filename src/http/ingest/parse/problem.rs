//! What can be wrong with a body or an event, in words for whoever sent it.

/// How many rejected events an answer names one by one; the others are only counted.
pub(crate) const NAMED: usize = 10_000;

/// The body is not what it says it is; nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// For programs.
    pub(crate) code: &'static str,
    /// For people: what, and where.
    pub(crate) detail: String,
    /// Line in the body, from 1.
    line: usize,
    /// Byte in the line, from 1.
    column: usize,
    /// What, without where.
    what: String,
}

impl Malformed {
    fn new(code: &'static str, what: impl Into<String>, line: usize, column: usize) -> Malformed {
        let what = what.into();
        Malformed { code, detail: format!("line {line}, column {column}: {what}"), line, column, what }
    }

    /// The error `serde_json` met while it read `text`.
    pub(super) fn of_json(error: &serde_json::Error, text: &str) -> Malformed {
        let mut what = error.to_string();
        if let Some(place) = what.rfind(" at line ") {
            what.truncate(place);
        }
        let code = if what == TOO_DEEP || what == "recursion limit exceeded" { "too_deep" } else { "malformed" };
        if text.trim_ascii().is_empty() {
            "the body is empty; send an event, an array of events, or one event per line".clone_into(&mut what);
        } else if what == "trailing characters" && text.trim_ascii_start().starts_with('{') {
            what.push_str(" after the event; to send one event per line, say content-type: application/x-ndjson");
        }
        Malformed::new(code, what, error.line().max(1), error.column().max(1))
    }

    /// The same, in line `number` of a body whose lines were read one by one.
    fn in_line(mut self, number: usize) -> Malformed {
        self.line = number;
        self.detail = format!("line {number}, column {}: {}", self.column, self.what);
        self
    }
}

/// What a body that is nested too deeply is told.
pub(super) const TOO_DEEP: &str = "nested deeper than 64 levels";

/// The bytes as text that JSON may start in.
pub(super) fn text(body: &[u8]) -> Result<&str, Malformed> {
    let text = utf8(body)?;
    without_mark(text)?;
    Ok(text)
}

/// The bytes as text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
        Malformed::new("invalid_utf8", "not UTF-8", line, column)
    })
}

/// Refuses a byte order mark: JSON text must not start with one.
pub(super) fn without_mark(text: &str) -> Result<(), Malformed> {
    if text.starts_with('\u{feff}') {
        return Err(Malformed::new("malformed", "starts with a byte order mark; send UTF-8 without one", 1, 1));
    }
    Ok(())
}

/// What is wrong with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: &'static str,
    /// The field it is about, as a JSON pointer from the event; empty for the event itself.
    pub(super) pointer: String,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(code: &'static str, field: &str, detail: impl Into<String>) -> Problem {
        let mut pointer = String::new();
        if !field.is_empty() {
            pointer.push('/');
            pointer.push_str(&field.replace('~', "~0").replace('/', "~1"));
        }
        Problem { code, pointer, detail: detail.into() }
    }

    pub(super) fn label(code: &'static str, name: &str, detail: impl Into<String>) -> Problem {
        let mut problem = Problem::new(code, &shortened(name), detail);
        problem.pointer.insert_str(0, "/labels");
        problem
    }
}

/// A name as it may stand in an answer: not endless, nothing in it that moves a cursor.
pub(super) fn shortened(name: &str) -> String {
    const LONGEST: usize = 64;
    let mut short = String::new();
    for (index, character) in name.chars().enumerate() {
        if index == LONGEST {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}

/// One event that was not accepted, as the answer names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rejected {
    /// Its place among the events of the body, from 0.
    pub(crate) index: u32,
    /// For programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: String,
    /// The field it is about, as a JSON pointer from the event.
    #[serde(skip)]
    pub(crate) pointer: String,
}

/// The events that were not accepted.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// The first [`NAMED`] of them.
    pub(crate) named: Vec<Rejected>,
    /// How many there are.
    pub(crate) total: u32,
    /// How many were not even JSON, or contradicted themselves.
    malformed: u32,
}

impl Rejections {
    /// Whether there is nothing but events that could not be read at all.
    pub(crate) fn only_malformed(&self) -> bool {
        self.total > 0 && self.malformed == self.total
    }

    /// Whether as many are named as ever will be.
    pub(super) fn is_full(&self) -> bool {
        self.named.len() >= NAMED
    }

    pub(super) fn add(&mut self, index: u32, problem: Problem) {
        self.total = self.total.saturating_add(1);
        if matches!(problem.code, "malformed" | "too_deep" | "invalid_utf8" | "duplicate_key") {
            self.malformed = self.malformed.saturating_add(1);
        }
        if !self.is_full() {
            self.named.push(Rejected { index, code: problem.code, detail: problem.detail, pointer: problem.pointer });
        }
    }

    pub(super) fn add_line(&mut self, index: u32, number: usize, malformed: Malformed) {
        let malformed = malformed.in_line(number);
        self.add(index, Problem { code: malformed.code, pointer: String::new(), detail: malformed.detail });
    }
}
