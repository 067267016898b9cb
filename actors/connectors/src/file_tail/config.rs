//! What a user can say about the files to follow.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Size, Span},
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{open, pattern::Pattern};

/// Configuration of `connector.fileTail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The files to follow. A file that several entries match belongs to the first of them.
    pub files: Vec<FileConfig>,
    /// How often the folders are looked through. The system's notices usually make it faster; this is what is relied on.
    pub poll: Span,
    /// How many files are followed at most, all entries together. Those beyond are counted and shown in health, not read.
    pub max_files: u32,
    /// How many files are held open at most. The others are opened when they grow; one that is renamed is then found by
    /// its inode, but one that is deleted before it was read is lost (and counted).
    pub max_open_files: u32,
    /// How much is read before it is committed to the ledger.
    pub batch: Size,
    /// How long a renamed or deleted file is still watched for late lines after it last grew.
    pub keep_rotated: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            files: Vec::new(),
            poll: Span::seconds(1),
            max_files: 1024,
            max_open_files: 64,
            batch: Size::mib(1),
            keep_rotated: Span::seconds(60),
        }
    }
}

/// One file, or all files of one pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file; `*`, `?`, `[a-z]` and `{a,b}` match within one name, as in `/var/log/*/app-*.log`. Links in the folder
    /// part before the first wildcard are followed once, at the start; links below it are refused.
    pub path: String,
    /// The source of the signals. Default: the file's name without its last extension.
    #[serde(default)]
    pub source: Option<String>,
    /// Where a file that was never read is begun.
    #[serde(default)]
    pub start_at: StartAt,
    /// Joins the lines of one record, such as a stack trace.
    #[serde(default)]
    pub multiline: Option<Multiline>,
    /// The severity of every line. Default: guessed from words such as ERROR near the start of the line, else `info`.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// Labels for every line. The label `file` (the path) is added.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The longest line that is kept whole. A longer one is cut here, marked, and counted.
    #[serde(default = "max_line")]
    pub max_line: Size,
    /// How long the last line may lack its end before it is taken as it is.
    #[serde(default = "partial_after")]
    pub partial_after: Span,
}

fn max_line() -> Size {
    Size(64 << 10)
}

fn partial_after() -> Span {
    Span::seconds(5)
}

/// Where a file that was never read is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// At its first line.
    #[default]
    Beginning,
    /// After what it holds when this entry is seen for the first time. Files that appear later are read whole.
    End,
}

/// How lines are joined to records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multiline {
    /// A regular expression that matches the first line of a record; the lines that follow belong to it.
    pub start: String,
    /// The most lines of one record; the next line begins another.
    #[serde(default = "max_lines")]
    pub max_lines: u32,
    /// The most bytes of one record; the line that does not fit begins another.
    #[serde(default = "max_bytes")]
    pub max_bytes: Size,
    /// How long a record waits for its next line before it is taken as complete.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

fn max_lines() -> u32 {
    500
}

fn max_bytes() -> Size {
    Size(256 << 10)
}

fn timeout() -> Span {
    Span::seconds(2)
}

impl FileConfig {
    /// An entry with nothing but its path.
    pub fn of(path: impl Into<String>) -> FileConfig {
        FileConfig {
            path: path.into(),
            source: None,
            start_at: StartAt::default(),
            multiline: None,
            severity: None,
            labels: BTreeMap::new(),
            max_line: max_line(),
            partial_after: partial_after(),
        }
    }
}

impl Multiline {
    /// Records that begin where `start` matches, with the default bounds.
    pub fn starting_with(start: impl Into<String>) -> Multiline {
        Multiline { start: start.into(), max_lines: max_lines(), max_bytes: max_bytes(), timeout: timeout() }
    }
}

/// Adds a problem unless `value` lies within `low..=high`.
fn within<T: PartialOrd + std::fmt::Display>(problems: &mut Vec<Problem>, pointer: String, value: T, low: T, high: T) {
    if value < low || value > high {
        problems.push(Problem::at(pointer, format!("{value} is out of range")).suggest(format!("choose something from {low} to {high}")));
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        within(&mut problems, "/poll".into(), self.poll, Span::millis(10), Span::seconds(3600));
        within(&mut problems, "/max_files".into(), self.max_files, 1, 100_000);
        within(&mut problems, "/max_open_files".into(), self.max_open_files, 1, 10_000);
        within(&mut problems, "/batch".into(), self.batch, Size(4 << 10), Size::mib(8));
        within(&mut problems, "/keep_rotated".into(), self.keep_rotated, Span::millis(0), Span::seconds(86_400));
        for (index, file) in self.files.iter().enumerate() {
            let under = format!("/files/{index}");
            problems.extend(file.validate().into_iter().map(|problem| problem.under(&under)));
            if let Some(first) = self.files.iter().take(index).position(|other| other.path == file.path) {
                let same = format!("the same path as in entry {first} (the first is 0); a file is read once");
                problems.push(Problem::at(format!("{under}/path"), same).suggest("take one of the two entries out"));
            }
        }
        problems
    }
}

impl FileConfig {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match Pattern::parse(&self.path) {
            Err(error) => problems.push(Problem::at("/path", error.to_string())),
            // A file that is not there yet may come; one that is there and cannot be read will not get better by waiting.
            Ok(pattern) if pattern.is_literal() => {
                if let Err(reason) = open::probe(&pattern) {
                    problems.push(Problem::at("/path", format!("cannot read {}: {reason}", self.path)));
                }
            }
            Ok(_) => {}
        }
        if let Some(source) = &self.source
            && (source.is_empty() || source.chars().count() > 256)
        {
            problems.push(Problem::at("/source", "a source has 1 to 256 characters"));
        }
        if self.labels.len() > 63 {
            problems.push(Problem::at("/labels", "at most 63 labels: the connector itself adds one more, `file`"));
        }
        for (name, value) in &self.labels {
            if name.is_empty() || name.chars().count() > 128 || value.chars().count() > 1024 {
                let place = name.replace('~', "~0").replace('/', "~1");
                problems.push(Problem::at(format!("/labels/{place}"), "a label's name has 1 to 128 characters, its value at most 1024"));
            }
        }
        within(&mut problems, "/max_line".into(), self.max_line, Size(64), Size::mib(1));
        within(&mut problems, "/partial_after".into(), self.partial_after, Span::millis(10), Span::seconds(86_400));
        if let Some(multiline) = &self.multiline {
            if let Err(error) = regex::bytes::Regex::new(&multiline.start) {
                // The crate's message draws the place over several lines; the last says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
                problems.push(Problem::at("/multiline/start", format!("not a regular expression: {reason}")));
            }
            within(&mut problems, "/multiline/max_lines".into(), multiline.max_lines, 1, 100_000);
            within(&mut problems, "/multiline/max_bytes".into(), multiline.max_bytes, Size(64), Size::mib(1));
            within(&mut problems, "/multiline/timeout".into(), multiline.timeout, Span::millis(10), Span::seconds(3600));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config).unwrap();
        config.validate().into_iter().map(|problem| format!("{} {}", problem.pointer, problem.message)).collect()
    }

    #[test]
    fn the_documented_form_is_accepted_and_needs_only_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("{}/*.log", dir.path().display());
        let found = problems(serde_json::json!({ "files": [
            { "path": path },
            { "path": format!("{path}.1"), "source": "app", "start_at": "end", "multiline": { "start": "^\\d" }, "severity": "error",
              "labels": { "team": "shop" }, "max_line": "8KiB", "partial_after": "1s" }
        ]}));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_named_with_its_place_at_once() {
        let found = problems(serde_json::json!({ "poll": "1ms", "batch": "1GiB", "files": [
            { "path": "relative/app.log" },
            { "path": "/var/log/**/app.log", "source": "" },
            { "path": "/var/log/x*/[.log", "max_line": "1B", "multiline": { "start": "(", "max_lines": 0 } },
            { "path": "/nowhere/../etc/app.log" },
            { "path": "/nowhere/a.log" },
            { "path": "/nowhere/a.log", "labels": { "": "x" } },
        ]}));
        let places: Vec<&str> = found.iter().filter_map(|line| line.split_once(' ')).map(|(place, _)| place).collect();
        assert_eq!(
            places,
            [
                "/poll",
                "/batch",
                "/files/0/path",
                "/files/1/path",
                "/files/1/source",
                "/files/2/path",
                "/files/2/max_line",
                "/files/2/multiline/start",
                "/files/2/multiline/max_lines",
                "/files/3/path",
                "/files/5/labels/",
                "/files/5/path",
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_value::<Config>(serde_json::json!({ "file": [] })).is_err());
        assert!(serde_json::from_value::<Config>(serde_json::json!({ "files": [{ "path": "/a", "sorce": "b" }] })).is_err());
    }

    #[test]
    fn h7_a_named_file_that_can_never_be_read_is_reported_at_check_time() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo.log");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        let link = dir.path().join("link.log");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        std::fs::create_dir(dir.path().join("dir.log")).unwrap();
        for (path, why) in [
            (fifo.display().to_string(), "named pipe"),
            (link.display().to_string(), "symbolic link"),
            (format!("{}/dir.log", dir.path().display()), "directory"),
            ("/dev/zero".to_owned(), "device"),
            ("/proc/self/environ".to_owned(), "not a log"),
        ] {
            let found = problems(serde_json::json!({ "files": [{ "path": path }] }));
            assert!(found.len() == 1 && found[0].contains(why), "{path}: {found:?}");
        }
    }
}
