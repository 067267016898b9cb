//! From bytes to records: lines, long lines, joined lines, unfinished lines.
//!
//! Knows nothing of files. What it was fed and has not given out yet can always be read again from
//! [`Assembler::position`], which is what a checkpoint says; so nothing but that needs to be kept.

use memchr::memchr;
use regex::bytes::Regex;

/// What bounds lines and records.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The longest line kept whole.
    pub(crate) max_line: usize,
    /// How lines are joined; `None`: each is a record.
    pub(crate) join: Option<Join>,
}

/// How lines are joined to records.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// Matches the first line of a record.
    pub(crate) start: Regex,
    /// The most lines of a record.
    pub(crate) max_lines: u32,
    /// The most bytes of a record.
    pub(crate) max_bytes: usize,
}

/// Where reading goes on after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// The first byte that no record given out so far covers.
    pub(crate) offset: u64,
    /// Whether that byte lies in a line whose beginning was given out, cut: what is left of the line is passed over.
    pub(crate) skipping: bool,
}

/// What was seen while reading, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Lines cut because they were too long.
    pub(crate) cut: u64,
    /// Records ended by their bounds rather than by the next one's beginning.
    pub(crate) split: u64,
}

/// Puts records together from the bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// The unfinished line.
    line: Vec<u8>,
    /// Where it begins.
    line_start: u64,
    /// The rest of the line is passed over.
    skipping: bool,
    /// The lines joined so far.
    record: Vec<u8>,
    record_lines: u32,
    record_start: u64,
    /// The next byte to be fed.
    read: u64,
    pub(crate) tally: Tally,
}

/// Receives each record.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

impl Assembler {
    /// Begins, or goes on, at `position`.
    pub(crate) fn at(position: Position) -> Assembler {
        Assembler { line_start: position.offset, read: position.offset, skipping: position.skipping, ..Assembler::default() }
    }

    /// The offset of the next byte to feed.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Where to go on if everything given out so far is safe and the rest is forgotten.
    pub(crate) fn position(&self) -> Position {
        if self.record_lines > 0 {
            Position { offset: self.record_start, skipping: false }
        } else if self.skipping {
            Position { offset: self.read, skipping: true }
        } else {
            Position { offset: self.line_start, skipping: false }
        }
    }

    /// Whether the last line lacks its end.
    pub(crate) fn has_partial(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether a record waits for its next line.
    pub(crate) fn has_record(&self) -> bool {
        self.record_lines > 0
    }

    /// Takes the next bytes of the file and gives out what they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], rules: &Rules, sink: Sink<'_>) {
        if self.read == 0 {
            // A byte order mark is no part of the first line.
            if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
                bytes = rest;
                self.read = 3;
                self.line_start = 3;
            }
        }
        while let Some(end) = memchr(b'\n', bytes) {
            let (piece, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            let rest = rest.split_first().map_or(rest, |(_, rest)| rest);
            self.read = self.read.saturating_add(length(piece) + 1);
            if self.skipping {
                self.skipping = false;
            } else if self.line.is_empty() && piece.len() <= rules.max_line {
                self.line_done(piece, rules, sink);
            } else {
                self.extend(piece, rules, sink);
                if self.skipping {
                    self.skipping = false;
                } else {
                    let line = std::mem::take(&mut self.line);
                    self.line_done(&line, rules, sink);
                    self.line = line;
                    self.line.clear();
                }
            }
            self.line_start = self.read;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.read = self.read.saturating_add(length(bytes));
            if !self.skipping {
                self.extend(bytes, rules, sink);
            }
        }
    }

    /// Adds to the unfinished line; if that makes it too long, gives out its beginning and passes over its rest.
    fn extend(&mut self, piece: &[u8], rules: &Rules, sink: Sink<'_>) {
        // One byte more may be a carriage return that does not count.
        let room = (rules.max_line + 1).saturating_sub(self.line.len());
        let fits = self.line.len() + piece.len() <= rules.max_line || piece.last().is_none_or(|last| *last == b'\r');
        if piece.len() <= room && fits {
            self.line.extend_from_slice(piece);
            return;
        }
        self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
        self.line.truncate(rules.max_line);
        let whole = self.line.len() - unfinished_char(&self.line);
        self.line.truncate(whole);
        self.line.extend_from_slice(format!(" …[cut at {} bytes]", rules.max_line).as_bytes());
        self.tally.cut += 1;
        let line = std::mem::take(&mut self.line);
        self.line_done(&line, rules, sink);
        self.skipping = true;
    }

    /// A line is complete (or was cut).
    fn line_done(&mut self, line: &[u8], rules: &Rules, sink: Sink<'_>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(join) = &rules.join else {
            if !line.is_empty() {
                sink(line);
            }
            return;
        };
        let full = self.record_lines >= join.max_lines || self.record.len() + 1 + line.len() > join.max_bytes;
        if self.record_lines > 0 {
            let begins = join.start.is_match(line);
            if !begins && !full {
                self.record.push(b'\n');
                self.record.extend_from_slice(line);
                self.record_lines += 1;
                return;
            }
            self.tally.split += u64::from(!begins);
            self.flush_record(sink);
        }
        if !line.is_empty() {
            self.record.extend_from_slice(line);
            self.record_lines = 1;
            self.record_start = self.line_start;
        }
    }

    /// Gives out the joined lines without waiting for more.
    pub(crate) fn flush_record(&mut self, sink: Sink<'_>) {
        if self.record_lines > 0 {
            let text = self.record.trim_ascii_end();
            if !text.is_empty() {
                sink(text);
            }
        }
        self.record.clear();
        self.record_lines = 0;
    }

    /// Takes the unfinished line as it is, and gives out everything. A character that is not complete stays, unless
    /// `last`: nothing more will come.
    pub(crate) fn flush_all(&mut self, last: bool, rules: &Rules, sink: Sink<'_>) {
        let keep = if last { 0 } else { unfinished_char(&self.line) };
        let rest = self.line.split_off(self.line.len() - keep);
        let line = std::mem::replace(&mut self.line, rest);
        if !line.is_empty() {
            self.line_done(&line, rules, sink);
            self.line_start = self.read.saturating_sub(length(&self.line));
        }
        self.flush_record(sink);
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// How many bytes at the end are the beginning of a UTF-8 character whose rest is missing.
fn unfinished_char(bytes: &[u8]) -> usize {
    for (back, byte) in bytes.iter().rev().take(3).enumerate() {
        let needs = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if back + 1 < needs { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(max_line: usize) -> Rules {
        Rules { max_line, join: None }
    }

    fn joined(start: &str, max_lines: u32, max_bytes: usize) -> Rules {
        Rules { max_line: 1000, join: Some(Join { start: Regex::new(start).unwrap(), max_lines, max_bytes }) }
    }

    fn collect(assembler: &mut Assembler, bytes: &[u8], rules: &Rules) -> Vec<String> {
        let mut out = Vec::new();
        assembler.feed(bytes, rules, &mut |record| out.push(String::from_utf8_lossy(record).into_owned()));
        out
    }

    fn flushed(assembler: &mut Assembler, last: bool, rules: &Rules) -> Vec<String> {
        let mut out = Vec::new();
        assembler.flush_all(last, rules, &mut |record| out.push(String::from_utf8_lossy(record).into_owned()));
        out
    }

    #[test]
    fn lines_end_at_newlines_and_lose_carriage_returns_and_emptiness() {
        let mut assembler = Assembler::default();
        assert_eq!(collect(&mut assembler, b"\xef\xbb\xbfone\r\n\n\r\ntwo\nthr", &plain(100)), ["one", "two"]);
        assert_eq!(assembler.position(), Position { offset: 15, skipping: false });
        assert_eq!(collect(&mut assembler, b"ee\n", &plain(100)), ["three"]);
        assert_eq!(assembler.position().offset, assembler.read());
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_once_marked_and_counted() {
        let rules = plain(8);
        let mut assembler = Assembler::default();
        assert_eq!(collect(&mut assembler, b"12345678\n", &rules), ["12345678"]);
        assert_eq!(collect(&mut assembler, b"12345678\r\n", &rules), ["12345678"]);
        assert_eq!(collect(&mut assembler, b"12345678\r", &rules), Vec::<String>::new());
        assert_eq!(collect(&mut assembler, b"\n", &rules), ["12345678"], "the end of the line may come in pieces");
        assert_eq!(collect(&mut assembler, b"123456", &rules), Vec::<String>::new());
        assert_eq!(collect(&mut assembler, b"789", &rules), ["12345678 …[cut at 8 bytes]"]);
        assert_eq!(assembler.position(), Position { offset: assembler.read(), skipping: true });
        assert_eq!(collect(&mut assembler, b"and much more", &rules), Vec::<String>::new());
        assert_eq!(collect(&mut assembler, b" of it\nnext\n", &rules), ["next"]);
        assert_eq!(collect(&mut assembler, "1234567ü89\n".as_bytes(), &rules), ["1234567 …[cut at 8 bytes]"]);
        assert_eq!(assembler.tally, Tally { cut: 2, split: 0 });
    }

    #[test]
    fn an_unfinished_line_waits_and_can_be_taken_as_it_is() {
        let rules = plain(100);
        let mut assembler = Assembler::default();
        assert_eq!(collect(&mut assembler, "half a l\u{fc}".as_bytes().split_last().unwrap().1, &rules), Vec::<String>::new());
        assert!(assembler.has_partial());
        assert_eq!(assembler.position().offset, 0);
        assert_eq!(flushed(&mut assembler, false, &rules), ["half a l"]);
        assert_eq!(assembler.position().offset, 8, "the unfinished character stays");
        assert_eq!(collect(&mut assembler, b"\xbcne\n", &rules), ["\u{fc}ne"]);
        assert_eq!(collect(&mut assembler, b"end\xc3", &rules), Vec::<String>::new());
        assert_eq!(flushed(&mut assembler, true, &rules), ["end\u{fffd}"]);
        assert_eq!(assembler.position().offset, assembler.read());
    }

    #[test]
    fn lines_are_joined_until_the_next_beginning() {
        let rules = joined(r"^\d", 10, 1000);
        let mut assembler = Assembler::default();
        assert_eq!(collect(&mut assembler, b"stray\n1 error\n  at a\n\n  at b\n2 ok\n", &rules), ["stray", "1 error\n  at a\n\n  at b"]);
        assert_eq!(assembler.position().offset, 29, "the record that waits is read again after a restart");
        assert!(assembler.has_record());
        let mut out = Vec::new();
        assembler.flush_record(&mut |record| out.push(record.to_vec()));
        assert_eq!(out, [b"2 ok"]);
        assert_eq!(assembler.position().offset, 34);
    }

    #[test]
    fn a_record_that_reaches_its_bound_is_ended_and_nothing_is_lost() {
        let mut assembler = Assembler::default();
        let rules = joined(r"^\d", 3, 1000);
        assert_eq!(collect(&mut assembler, b"1\na\nb\nc\nd\ne\n2\n", &rules), ["1\na\nb", "c\nd\ne"]);
        assert_eq!(assembler.tally.split, 1);
        let mut assembler = Assembler::default();
        let rules = joined(r"^\d", 100, 8);
        assert_eq!(collect(&mut assembler, b"1234\nabc\ndefg\n2\n", &rules), ["1234\nabc", "defg"]);
    }

    fn rules() -> impl Strategy<Value = Rules> {
        prop_oneof![
            (4..20_usize).prop_map(plain),
            (1..5_u32, 8..40_usize).prop_map(|(lines, bytes)| Rules { max_line: 12, ..joined("^[ab]", lines, bytes) })
        ]
    }

    proptest! {
        /// Kills lose nothing and repeat nothing: whatever was given out before is followed by the rest, wherever the file
        /// was cut into reads and wherever the reader was thrown away and begun again at its position.
        #[test]
        fn a1_reading_on_from_a_position_gives_what_one_read_gives(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), Just(b'x'), Just(0xc3), Just(0xbc)], 0..200),
            cuts in proptest::collection::vec((1..30_usize, any::<bool>()), 1..40),
            rules in rules(),
        ) {
            let mut whole = Assembler::default();
            let mut expected = Vec::new();
            whole.feed(&text, &rules, &mut |record| expected.push(record.to_vec()));
            whole.flush_all(true, &rules, &mut |record| expected.push(record.to_vec()));

            let mut got = Vec::new();
            let mut assembler = Assembler::default();
            let mut cuts = cuts.iter().cycle();
            let mut kills = 0;
            while usize::try_from(assembler.read()).unwrap() < text.len() {
                let (size, kill) = *cuts.next().unwrap();
                let from = usize::try_from(assembler.read()).unwrap();
                let to = (from + size).min(text.len());
                assembler.feed(&text[from..to], &rules, &mut |record| got.push(record.to_vec()));
                if kill && kills < 20 {
                    kills += 1;
                    assembler = Assembler::at(assembler.position());
                }
            }
            assembler.flush_all(true, &rules, &mut |record| got.push(record.to_vec()));
            prop_assert_eq!(got, expected);
        }
    }
}
