//! The head of a request, read strictly: what two parties could take for two different things is refused.
//!
//! It is looked at line by line as it comes, each line once, and nothing of it is kept but what says where the
//! request ends. The parser behind reads it again; it sees only heads that passed.

use actix_web::http::StatusCode;
use memchr::{memchr, memchr2};

/// The most bytes of a head, request line included.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// The longest request target.
pub(crate) const MAX_TARGET: usize = 4096;
/// The most header lines; the parser behind knows no more than 96.
const MAX_LINES: usize = 96;
/// The longest method.
const MAX_METHOD: usize = 32;

/// Why a request is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The status to answer with.
    pub(crate) status: StatusCode,
    /// For programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: &'static str,
}

/// A flaw of the request's form.
pub(super) const fn malformed(code: &'static str, detail: &'static str) -> Flaw {
    Flaw { status: StatusCode::BAD_REQUEST, code, detail }
}

const BARE_LF: Flaw = malformed("bad_line_end", "a line of the head ends with LF alone; lines end with CRLF");
const TOO_LARGE: Flaw =
    Flaw { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, code: "headers_too_large", detail: "the head is larger than 16 KiB" };
const TOO_MANY: Flaw = Flaw {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    code: "headers_too_large",
    detail: "the head has more than 96 header lines",
};
const TOO_LONG: Flaw =
    Flaw { status: StatusCode::URI_TOO_LONG, code: "target_too_long", detail: "the request target is longer than 4096 bytes" };
const NOT_HTTP: Flaw = malformed("bad_request_line", "a request begins with a method, a target and HTTP/1.1, with one space between them");
const BAD_TARGET: Flaw = malformed("bad_target", "the request target must be a path, with anything unusual in it percent-encoded");
const BAD_HEADER: Flaw = malformed("bad_header", "a header line is a name, a colon and a value without control characters");
const BAD_HOST: Flaw = malformed("bad_host", "a request names exactly one host");
const BAD_LENGTH: Flaw = malformed("bad_content_length", "Content-Length is one number, named once");
const BAD_CODING: Flaw = malformed("bad_transfer_encoding", "the only Transfer-Encoding known here is chunked, named once");

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// So many bytes of a body; none if there is no body.
    Bytes(u64),
    /// A body in chunks.
    Chunks,
    /// Another protocol, until the connection ends.
    Anything,
}

/// Bytes that a method and a header name are made of.
const TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    loop {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            // a const block cannot use `get_mut` with `?`; the index is a u8 and the table has 256 entries
            #[allow(clippy::indexing_slicing, clippy::as_conversions, reason = "evaluated by the compiler, a u8 cannot miss 256 entries")]
            {
                table[byte as usize] = true;
            }
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN.get(usize::from(*byte)).copied().unwrap_or(false))
}

/// Whether a value has no control characters but tabs.
pub(super) fn is_plain(value: &[u8]) -> bool {
    // without a way out of the loop, so that many bytes are looked at in one step
    value.iter().fold(true, |plain, byte| plain & ((*byte >= b' ' && *byte != 0x7f) || *byte == b'\t'))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Reads one head.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Where the line begins that is not whole yet.
    at: usize,
    begun: bool,
    post: bool,
    old: bool,
    lines: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    close: bool,
    keep: bool,
}

impl HeadReader {
    /// Looks at `bytes`, which begin with the head and are longer by what came since the last time.
    ///
    /// Returns the length of the head once it is whole.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let line = memchr(b'\n', rest).and_then(|end| rest.get(..end));
            if self.at + line.map_or(rest.len(), |line| line.len() + 1) > MAX_HEAD {
                return Err(if self.begun { TOO_LARGE } else { TOO_LONG });
            }
            let Some(line) = line else { return self.unfinished(rest).map(|()| None) };
            let first = self.at == 0;
            self.at += line.len() + 1;
            let line = line.strip_suffix(b"\r").ok_or(BARE_LF)?;
            if !self.begun {
                // one empty line behind a body is forgiven, as the standard asks
                if !(first && line.is_empty()) {
                    self.request_line(line)?;
                }
            } else if !line.is_empty() {
                self.header(line)?;
            } else {
                self.whole()?;
                return Ok(Some(self.at));
            }
        }
    }

    /// What cannot become a request is not waited for.
    fn unfinished(&self, line: &[u8]) -> Result<(), Flaw> {
        if self.begun {
            return Ok(());
        }
        let method = memchr2(b' ', b'\r', line).and_then(|end| line.get(..end)).unwrap_or(line);
        let nothing_yet = method.is_empty() && line.len() < 2;
        let is_method = is_token(method) && method.len() <= MAX_METHOD;
        if !nothing_yet && !is_method {
            return Err(NOT_HTTP);
        }
        if line.len() > MAX_METHOD + MAX_TARGET + 16 { Err(TOO_LONG) } else { Ok(()) }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        self.begun = true;
        let (method, rest) = split(line, b' ').ok_or(NOT_HTTP)?;
        let (target, version) = split(rest, b' ').ok_or(NOT_HTTP)?;
        self.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(NOT_HTTP),
        };
        if !is_token(method) || method.len() > MAX_METHOD || target.is_empty() {
            return Err(NOT_HTTP);
        }
        self.post = method == b"POST";
        if target.len() > MAX_TARGET {
            return Err(TOO_LONG);
        }
        let path = memchr(b'?', target).and_then(|end| target.get(..end)).unwrap_or(target);
        let query = target.get(path.len()..).unwrap_or_default();
        let known = path.first() == Some(&b'/')
            && path.iter().all(|byte| matches!(byte, 0x21..=0x22 | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7e))
            && query.iter().all(|byte| matches!(byte, 0x21 | 0x24..=0x3b | 0x3d | 0x3f..=0x7e));
        if known { Ok(()) } else { Err(BAD_TARGET) }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Flaw> {
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Err(TOO_MANY);
        }
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(malformed("folded_header", "a header value goes on in the next line; send it in one"));
        }
        let (name, value) = split(line, b':').ok_or(BAD_HEADER)?;
        if matches!(name, [.., b' ' | b'\t']) {
            return Err(malformed("bad_header", "there is white space between a header's name and its colon"));
        }
        if !is_token(name) || !is_plain(value) {
            return Err(BAD_HEADER);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= trimmed(value).eq_ignore_ascii_case(b"websocket"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|byte| *byte == b',').map(trimmed) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(trimmed(value)).ok_or(BAD_LENGTH)?;
                if self.length.replace(length).is_some() {
                    return Err(BAD_LENGTH);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !trimmed(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(BAD_CODING);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn whole(&self) -> Result<(), Flaw> {
        if self.hosts > 1 || (self.hosts == 0 && !self.old) {
            return Err(BAD_HOST);
        }
        if self.chunked && self.length.is_some() {
            return Err(malformed("two_lengths", "a body has a Content-Length or comes in chunks, not both"));
        }
        if self.chunked && self.old {
            return Err(malformed("bad_transfer_encoding", "HTTP/1.0 knows no transfer encoding"));
        }
        if self.old && self.post && self.length.is_none() {
            return Err(malformed("bad_content_length", "a POST of HTTP/1.0 says how long its body is"));
        }
        if self.upgrade && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            return Err(malformed("body_before_upgrade", "a request that asks for another protocol has no body"));
        }
        Ok(())
    }

    /// What follows the head, once it is whole.
    pub(super) fn follows(&self) -> Follows {
        match self.length {
            _ if self.upgrade => Follows::Anything,
            _ if self.chunked => Follows::Chunks,
            length => Follows::Bytes(length.unwrap_or(0)),
        }
    }

    /// Whether the client said that it will send no other request.
    pub(super) fn is_last(&self) -> bool {
        self.close || (self.old && !self.keep)
    }
}

/// Before and behind the first `at`.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, behind) = text.split_at_checked(memchr(at, text)?)?;
    Some((before, behind.get(1..)?))
}

/// A decimal number, digits only.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
