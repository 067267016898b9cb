//! What can be read off a line without understanding it: its shape, whether it tells of trouble, whom it names.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Tokens of a line that make up its shape; what stands behind them does not count.
const TOKENS: usize = 48;
/// The longest token that is kept as it is; longer ones are data.
const LONG: usize = 40;
/// So much of a line is looked at, and so much of it for telling words.
const LINE: usize = 2048;
const TELLING: usize = 512;

/// Words of lines that tell of trouble.
const BAD: &[&str] = &[
    "error",
    "fail",
    "fatal",
    "panic",
    "exception",
    "refused",
    "timeout",
    "timed out",
    "cannot",
    "could not",
    "unable to",
    "denied",
    "out of memory",
    "no space",
    "killed",
    "unreachable",
    "exhausted",
    "corrupt",
    "unavailable",
    "aborted",
    "deadlock",
    "traceback",
];

/// Words of lines that tell of trouble of the one who says it, and not of somebody it talks to.
const LOCAL: &[&str] = &[
    "no space left",
    "disk full",
    "out of memory",
    "oom",
    "cannot allocate",
    "input/output error",
    "i/o error",
    "read-only file system",
    "too many open files",
    "segmentation fault",
    "panic",
    "certificate has expired",
    "certificate expired",
    "corrupt",
    "killed",
    "throttl",
];

/// Words of lines that tell of something that people do: it changes things on purpose.
const DEED: &[&str] = &[
    "deploy",
    "version",
    "rollout",
    "rolled out",
    "release",
    "upgrade",
    "config reload",
    "configuration reloaded",
    "restarted",
    "starting",
    "started",
    "migrat",
    "scaled",
    "failover",
    "feature flag",
    "switched",
    "maintenance",
];

/// Words that go with a connection to somebody.
const CONNECTION: &[&str] =
    &["connect", "timeout", "timed out", "refused", "unreachable", "resolve", "upstream", "answered", "host", "dial", "reset by", "lookup"];

fn holds_any(text: &str, words: &[&str]) -> bool {
    let lower = cut(text, TELLING).to_lowercase();
    words.iter().any(|word| lower.contains(word))
}

/// Whether a line tells of trouble, whatever its severity says.
pub(super) fn is_bad(text: &str) -> bool {
    holds_any(text, BAD)
}

/// Whether the trouble is the speaker's own.
pub(super) fn is_local(text: &str) -> bool {
    holds_any(text, LOCAL)
}

/// Whether a line tells of something that was done on purpose.
pub(super) fn is_deed(text: &str) -> bool {
    holds_any(text, DEED)
}

/// The longest beginning of `text` that has at most `limit` bytes.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

fn separates(c: char) -> bool {
    c.is_whitespace() || matches!(c, '=' | ',' | ';' | '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' | '<' | '>' | '|')
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    cut(text, LINE).split(separates).filter(|token| !token.is_empty())
}

/// What a token counts as in a shape: itself, or that there is some data. A status of HTTP keeps its first digit.
fn masked(token: &str) -> &str {
    let is_hex = |token: &str| token.len() >= 6 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (token.len(), token.parse::<u16>()) {
        (3, Ok(400..=431 | 451 | 499)) => "4xx",
        (3, Ok(500..=511)) => "5xx",
        _ if token.len() > LONG || token.bytes().any(|byte| byte.is_ascii_digit()) || is_hex(token) => "*",
        _ => token,
    }
}

/// Lines of the same shape differ only in their data.
pub(super) fn shape(text: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    for token in tokens(text).take(TOKENS) {
        masked(token).hash(&mut hash);
    }
    hash.finish()
}

/// The shape in words.
pub(super) fn shape_name(text: &str) -> String {
    let words: Vec<&str> = tokens(text).take(TOKENS).map(masked).collect();
    clean(&words.join(" "), 120)
}

fn is_plain(c: char) -> bool {
    let direction = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}');
    !c.is_control() && !direction && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{e0000}'..='\u{e007f}')
}

/// Text that cannot break out of the sentence it is put into: no control characters, no marks that turn its direction,
/// no quotation marks of ours, cut after `most` characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    let (mut chars, mut blank) = (0, true);
    for c in text.chars() {
        let c = match c {
            '“' | '”' => '"',
            c if c.is_whitespace() || !is_plain(c) => ' ',
            c => c,
        };
        if c == ' ' && blank {
            continue;
        }
        blank = c == ' ';
        if chars == most {
            out.truncate(out.trim_end().len());
            out.push('…');
            return out;
        }
        out.push(c);
        chars += 1;
    }
    out.truncate(out.trim_end().len());
    out
}

/// The longest part of a line that can be shown as it stands, byte for byte.
pub(super) fn quotable(text: &str) -> Option<&str> {
    let longest = text.split(|c| !is_plain(c)).map(str::trim).max_by_key(|part| part.len())?;
    let quote = cut(longest, 240).trim();
    (!quote.is_empty()).then_some(quote)
}

/// Words that are the names of components often enough, and words of a sentence far more often.
const COMMON: &[&str] = &[
    "server",
    "client",
    "app",
    "application",
    "log",
    "logs",
    "system",
    "error",
    "errors",
    "service",
    "host",
    "main",
    "test",
    "info",
    "worker",
    "process",
    "kernel",
    "default",
    "unknown",
    "user",
    "request",
    "job",
    "node",
    "cluster",
    "data",
    "file",
    "network",
    "the",
    "a",
    "to",
    "from",
];

/// The name a component goes by in what others say: without the domain, and without an instance's number or hash.
pub(super) fn alias(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let name = name.split('.').next().unwrap_or(&name);
    let mut parts: Vec<&str> = name.split('-').collect();
    let is_instance = |part: &str| part.bytes().any(|byte| byte.is_ascii_digit()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    while parts.len() > 1 && parts.last().is_some_and(|part| is_instance(part)) {
        parts.pop();
    }
    let alias = parts.join("-");
    (alias.len() >= 2 && !COMMON.contains(&alias.as_str())).then_some(alias)
}

/// Every word of a line that may name somebody, in lower case: as it stands, and without a port, path or domain.
pub(super) fn names(text: &str) -> Vec<String> {
    let word = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let mut found: Vec<String> = Vec::new();
    for word in cut(text, LINE).split(word).filter(|word| word.len() >= 2).take(200) {
        let word = word.trim_matches('.').to_lowercase();
        let host = word.split('.').next().unwrap_or_default().to_owned();
        let bare = alias(&host).unwrap_or_default();
        for name in [word, host, bare] {
            if !name.is_empty() && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// Somebody a line speaks of as `host:port`, in words that go with a connection.
pub(super) fn endpoint(text: &str) -> Option<&str> {
    if !holds_any(text, CONNECTION) {
        return None;
    }
    let ends = |c: char| separates(c) || matches!(c, '/' | '@');
    cut(text, LINE).split(ends).map(|token| token.trim_end_matches([':', '.'])).find(|token| {
        let Some((host, port)) = token.rsplit_once(':') else { return false };
        let is_port = (2..=5).contains(&port.len()) && port.parse::<u16>().is_ok();
        let letters = host.bytes().any(|byte| byte.is_ascii_alphabetic()) || host.parse::<std::net::Ipv4Addr>().is_ok();
        let code = [".rs", ".go", ".py", ".js", ".ts", ".c", ".cpp", ".java", ".rb", ".php"].iter().any(|end| host.ends_with(end));
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        is_port && letters && plain && !code && (2..=64).contains(&host.len())
    })
}

/// The words of a text that say something, in lower case.
pub(super) fn significant(text: &str) -> Vec<String> {
    let mut words: Vec<String> = cut(text, LINE)
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() >= 3 && !word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_lowercase)
        .filter(|word| !matches!(word.as_str(), "the" | "and" | "for" | "with" | "from" | "its" | "has" | "was" | "are" | "not"))
        .take(200)
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_only_in_their_data_have_one_shape() {
        let same = |a: &str, b: &str| shape(a) == shape(b);
        assert!(same("payment failed for order 48211: 503 after 5003 ms", "payment failed for order 9: 502 after 1 ms"));
        assert!(same("POST /checkout 200 57ms request=0a1b2c3d", "POST /checkout 201 9ms request=abcdefab"));
        assert!(!same("POST /checkout 200 57ms", "POST /checkout 502 57ms"), "an answer that failed is another thing");
        assert!(!same("cache is warm", "cache is cold"));
        assert_eq!(shape_name("order 48211 placed, 12.50 EUR"), "order * placed * EUR");
    }

    #[test]
    fn hostile_text_is_made_harmless_and_quotes_stay_byte_exact() {
        let line = "a\u{1b}[31mred\u{1b}[0m\n<b>“quoted”</b>\u{202e}txt\u{0}";
        assert_eq!(clean(line, 200), "a [31mred [0m <b>\"quoted\"</b> txt");
        assert!(line.contains(quotable(line).unwrap()));
        assert_eq!(quotable("\u{0}\u{1b}\u{7}"), None);
        assert_eq!(clean(&"x".repeat(1 << 20), 3), "xxx…");
        assert_eq!(cut("ääää", 3), "ä");
    }

    #[test]
    fn whom_a_line_names_is_found_by_word_address_and_instance() {
        assert_eq!(endpoint("could not get a connection to db:5432 within 5s"), Some("db:5432"));
        assert_eq!(endpoint("connection refused: 10.0.0.7:6379"), Some("10.0.0.7:6379"));
        for not in ["panic at main.rs:42, connection", "at 12:30 the host woke", "ratio a:bb of connections", "listening on db:5432"] {
            assert_eq!(endpoint(not), None, "{not}");
        }
        assert!(names("http://payments.internal:8080/x answered 503").contains(&"payments".to_owned()));
        assert!(names("POST /checkout 502").contains(&"checkout".to_owned()));
        assert_eq!(alias("payments-7f9c4-x2kq1").as_deref(), Some("payments"));
        assert_eq!((alias("server"), alias("db-1").as_deref()), (None, Some("db")));
    }
}
