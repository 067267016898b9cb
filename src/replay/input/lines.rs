//! Lines of a file, many at a time, in bounded memory.

use std::io::{ErrorKind, Read};

/// So much is read at a time.
const CHUNK: usize = 1 << 20;
/// A longer line is passed over. As much as a body of `POST /api/events` may have.
pub(super) const MAX_LINE: usize = 8 << 20;
/// A document that is not of lines is held in memory.
const MAX_WHOLE: usize = 256 << 20;

/// Whole lines.
pub(super) struct Chunk {
    /// The bytes, with the line ends.
    pub(super) bytes: Vec<u8>,
    /// The number of the first line, from 1.
    pub(super) first: u64,
}

impl Chunk {
    /// Each line with its number, without its line end.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let whole = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let lines = whole.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        (self.first..).zip(lines)
    }
}

pub(super) struct Lines {
    reader: Box<dyn Read + Send>,
    held: Vec<u8>,
    next: u64,
    /// A line that is too long is under way: its end is waited for.
    skipping: bool,
    begun: bool,
    ended: bool,
    cut_off: Option<String>,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Lines {
        Lines { reader, held: Vec::new(), next: 1, skipping: false, begun: false, ended: false, cut_off: None }
    }

    /// Why the file could not be read to its end.
    pub(super) fn cut_off(&self) -> Option<&str> {
        self.cut_off.as_deref()
    }

    /// How the file begins.
    pub(super) fn peek(&mut self) -> &[u8] {
        self.fill(64 << 10);
        &self.held
    }

    /// Everything that is left, if it is not too much.
    pub(super) fn whole(&mut self) -> Vec<u8> {
        self.fill(MAX_WHOLE);
        if !self.ended {
            self.cut_off = Some(format!("one document of more than {} MiB; write one event a line", MAX_WHOLE >> 20));
        }
        std::mem::take(&mut self.held)
    }

    /// Reads until so much is held, or the file ends.
    fn fill(&mut self, wanted: usize) {
        while self.held.len() < wanted && !self.ended {
            let before = self.held.len();
            let most = wanted.saturating_sub(before).min(CHUNK);
            let mut part = (&mut self.reader).take(u64::try_from(most).unwrap_or(u64::MAX));
            match part.read_to_end(&mut self.held) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    self.cut_off = Some(match error.kind() {
                        ErrorKind::UnexpectedEof => "the compressed data ends in the middle".to_owned(),
                        _ => error.to_string(),
                    });
                }
            }
        }
        if !self.begun && !self.held.is_empty() {
            self.begun = true;
            if self.held.starts_with("\u{feff}".as_bytes()) {
                self.held.drain(..3);
            }
        }
    }

    /// The next lines; `bad` is told of one that is passed over.
    pub(super) fn chunk(&mut self, bad: &mut dyn FnMut(u64, String)) -> Option<Chunk> {
        loop {
            self.fill(self.held.len().max(1).saturating_add(CHUNK));
            if self.skipping {
                match memchr::memchr(b'\n', &self.held) {
                    Some(end) => {
                        self.held.drain(..=end);
                        self.next += 1;
                        self.skipping = false;
                    }
                    None => self.held.clear(),
                }
            }
            if self.held.is_empty() {
                if self.ended {
                    return None;
                }
                continue;
            }
            let end = match memchr::memrchr(b'\n', &self.held) {
                Some(end) => end + 1,
                // what a cut-off file ends with is half a line
                None if self.ended && self.cut_off.is_some() => return None,
                None if self.ended => self.held.len(),
                None if self.held.len() > MAX_LINE => {
                    bad(self.next, format!("longer than {} MiB", MAX_LINE >> 20));
                    self.held.clear();
                    self.skipping = true;
                    continue;
                }
                None => continue,
            };
            let rest = self.held.split_off(end);
            let bytes = std::mem::replace(&mut self.held, rest);
            let first = self.next;
            self.next += u64::try_from(memchr::memchr_iter(b'\n', &bytes).count()).unwrap_or(0);
            return Some(Chunk { bytes, first });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<(u64, String)>, Vec<u64>) {
        let mut lines = Lines::new(Box::new(std::io::Cursor::new(bytes.to_vec())));
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        while let Some(chunk) = lines.chunk(&mut |line, _| bad.push(line)) {
            found.extend(chunk.lines().map(|(number, line)| (number, String::from_utf8_lossy(line).into_owned())));
        }
        (found, bad)
    }

    #[test]
    fn lines_bear_their_numbers_whatever_ends_them() {
        let line = |number: u64, text: &str| (number, text.to_owned());
        assert_eq!(read(b"\xef\xbb\xbfa\r\n\nb"), (vec![line(1, "a"), line(2, ""), line(3, "b")], vec![]));
        assert_eq!(read(b""), (vec![], vec![]));
        assert_eq!(read(b"a\n"), (vec![line(1, "a")], vec![]));
    }

    #[test]
    fn a_line_without_an_end_is_passed_over_and_its_neighbours_are_read() {
        let mut bytes = b"a\n".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', MAX_LINE + 3 * CHUNK));
        bytes.extend(b"\nb\n");
        let (found, bad) = read(&bytes);
        assert_eq!((found, bad), (vec![(1, "a".to_owned()), (3, "b".to_owned())], vec![2]));
    }
}
