//! What of a word is data: numbers, addresses and ids become named masks, the rest stays as it is.
//!
//! Works on bytes, in one pass, without a regular expression. The masks are named, because a mask that looks like a
//! template's own wildcard makes every repeat a new shape.

/// What bytes are, as far as masking cares.
pub(super) const SPACE: u8 = 1;
pub(super) const DIGIT: u8 = 2;
pub(super) const ALPHA: u8 = 4;
pub(super) const HEX: u8 = 8;
pub(super) const EQUALS: u8 = 16;
pub(super) const SLASH: u8 = 32;
pub(super) const ALNUM: u8 = DIGIT | ALPHA;

/// The class of every byte; whatever is not ASCII counts as a letter.
pub(super) static CLASS: [u8; 256] = classes();

#[allow(clippy::as_conversions, clippy::indexing_slicing, reason = "computed by the compiler: a wrong index does not build")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0..=b' ' | 0x7f => SPACE,
            b'0'..=b'9' => DIGIT | HEX,
            b'a'..=b'f' | b'A'..=b'F' => ALPHA | HEX,
            b'g'..=b'z' | b'G'..=b'Z' | 0x80..=0xff => ALPHA,
            b'=' => EQUALS,
            b'/' => SLASH,
            _ => 0,
        };
        byte += 1;
    }
    table
}

#[inline]
pub(super) fn class(byte: u8) -> u8 {
    // a byte is below 256: the compiler leaves the check out
    CLASS.get(usize::from(byte)).copied().unwrap_or(0)
}

/// What a piece of a word was replaced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    Number,
    Address,
    Hex,
    Uuid,
    Id,
}

impl Mask {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Mask::Number => "<NUM>",
            Mask::Address => "<IP>",
            Mask::Hex => "<HEX>",
            Mask::Uuid => "<UUID>",
            Mask::Id => "<ID>",
        }
    }

    pub(super) const fn code(self) -> u64 {
        match self {
            Mask::Number => 0xA1,
            Mask::Address => 0xB2,
            Mask::Hex => 0xC3,
            Mask::Uuid => 0xD4,
            Mask::Id => 0xE5,
        }
    }
}

/// Takes a masked word piece by piece.
pub(super) trait Sink {
    fn literal(&mut self, bytes: &[u8]);
    fn mask(&mut self, mask: Mask);
}

/// What is to be known of a masked word besides its pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Masked {
    /// How many masks it has.
    pub(super) masks: u32,
    /// Whether it begins with one.
    pub(super) leads: bool,
    /// Whether it ends with a number, so that a unit may follow.
    pub(super) number_last: bool,
}

/// Gives `word` to `sink`, with its data masked.
#[inline]
pub(super) fn mask(word: &[u8], sink: &mut impl Sink) -> Masked {
    let mut at = 0;
    let mut plain = 0;
    let mut seen = Masked::default();
    while let Some(&byte) = word.get(at) {
        if class(byte) & ALNUM == 0 {
            at += 1;
            continue;
        }
        let Run { end, digits, letters, hex, turns } = run(word, at);
        let is_address = hex && end - at <= 4 && word.get(end) == Some(&b':');
        if !(digits || is_address || hex && end - at == 8) {
            at = end;
            continue;
        }
        let found = if hex && end - at == 8 && is_uuid(word, at) {
            Some((Mask::Uuid, at, at + 36))
        } else if is_address && let Some(end) = colon_address(word, at) {
            Some((Mask::Address, at, end))
        } else if !digits {
            None
        } else if (byte == b'0' && matches!(word.get(at + 1), Some(b'x' | b'X')) && is_hex(word, at + 2, end))
            || (letters && hex && end - at >= 8)
        {
            Some((Mask::Hex, at, end))
        } else if class(byte) & DIGIT != 0
            && let Some((mask, end)) = number(word, at)
        {
            Some((mask, sign(word, plain, at), end))
        } else if turns >= 3 {
            Some((Mask::Id, at, end))
        } else {
            None
        };
        if let Some((mask, start, end)) = found {
            put(word, plain, start, mask, sink, &mut seen);
            (at, plain) = (end, end);
            continue;
        }
        // a word with a number in it, such as `node17`: its letters stay
        while at < end {
            let from = at;
            let digit = class(word.get(at).copied().unwrap_or(0)) & DIGIT;
            while at < end && class(word.get(at).copied().unwrap_or(0)) & DIGIT == digit {
                at += 1;
            }
            if digit != 0 {
                put(word, plain, from, Mask::Number, sink, &mut seen);
                plain = at;
            }
        }
    }
    if let Some(rest) = word.get(plain..).filter(|rest| !rest.is_empty()) {
        sink.literal(rest);
        seen.number_last = false;
    }
    seen
}

#[inline]
fn put(word: &[u8], plain: usize, start: usize, mask: Mask, sink: &mut impl Sink, seen: &mut Masked) {
    match word.get(plain..start) {
        Some(before) if !before.is_empty() => sink.literal(before),
        _ => seen.leads |= seen.masks == 0,
    }
    sink.mask(mask);
    seen.masks += 1;
    seen.number_last = mask == Mask::Number;
}

/// A run of letters and digits.
struct Run {
    end: usize,
    digits: bool,
    letters: bool,
    hex: bool,
    /// How often letters and digits take turns.
    turns: u32,
}

#[inline]
fn run(word: &[u8], start: usize) -> Run {
    let (mut all, mut any, mut turns, mut before) = (0xff, 0, 0, 0);
    let mut end = start;
    while let Some(kind) = word.get(end).map(|byte| class(*byte)).filter(|kind| kind & ALNUM != 0) {
        turns += u32::from(before != 0 && before & kind & ALNUM == 0);
        (all, any, before) = (all & kind, any | kind, kind);
        end += 1;
    }
    Run { end, digits: any & DIGIT != 0, letters: any & ALPHA != 0, hex: all & HEX != 0, turns }
}

fn is_hex(word: &[u8], start: usize, end: usize) -> bool {
    word.get(start..end).is_some_and(|part| !part.is_empty() && part.iter().all(|byte| class(*byte) & HEX != 0))
}

/// Whether a UUID (RFC 9562: 8-4-4-4-12 hex digits) stands at `start`.
fn is_uuid(word: &[u8], start: usize) -> bool {
    let ends = word.get(start + 36).is_none_or(|byte| class(*byte) & ALNUM == 0);
    ends && word.get(start..start + 36).is_some_and(|part| {
        part.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => class(*byte) & HEX != 0,
        })
    })
}

/// The end of an address written in hex with colons (IPv6, MAC), if one stands at `start`: at least two colons, a digit
/// and a letter, so that a time is none.
fn colon_address(word: &[u8], start: usize) -> Option<usize> {
    let (mut end, mut colons, mut any, mut group) = (start, 0, 0, 0);
    while let Some(&byte) = word.get(end) {
        match class(byte) {
            kind if kind & HEX != 0 => (any, group) = (any | kind, group + 1),
            kind if kind & ALNUM != 0 => return None,
            _ if byte == b':' => (colons, group) = (colons + 1, 0),
            _ => break,
        }
        if group > 4 {
            return None;
        }
        end += 1;
    }
    (colons >= 2 && any & ALNUM == ALNUM && group > 0).then_some(end)
}

/// Where the number at `at` begins if a sign or a comparison stands before it.
fn sign(word: &[u8], plain: usize, at: usize) -> usize {
    let Some(before) = at.checked_sub(1).filter(|before| *before >= plain) else { return at };
    let first = before.checked_sub(1).and_then(|at| word.get(at)).is_none_or(|byte| class(*byte) & ALNUM == 0);
    match word.get(before) {
        Some(b'-' | b'+') if first => before,
        Some(b'<' | b'>' | b'~') if before == 0 => before,
        _ => at,
    }
}

/// The number at `start`, with its groups, its exponent and its unit: what it is and where it ends. None if letters
/// follow that are no unit.
fn number(word: &[u8], start: usize) -> Option<(Mask, usize)> {
    let digits_from = |from: usize| {
        let mut at = from;
        while word.get(at).is_some_and(|byte| class(*byte) & DIGIT != 0) {
            at += 1;
        }
        at
    };
    let is_digit = |at: usize| word.get(at).is_some_and(|byte| class(*byte) & DIGIT != 0);
    let mut end = digits_from(start);
    let (mut joints, mut dots) = (0, u32::from(end - start <= 3));
    loop {
        match word.get(end) {
            Some(joint @ (b'.' | b',' | b':' | b'-' | b'/' | b'T')) if is_digit(end + 1) && (*joint != b'T' || joints > 0) => {
                let next = digits_from(end + 1);
                // what is behind the joint must be a number as well, or a unit must follow
                if word.get(next).is_some_and(|byte| class(*byte) & ALPHA != 0) && !ends_number(word, next) {
                    break;
                }
                if *joint == b'.' && joints + 1 == dots && next - end <= 4 {
                    dots += 1;
                }
                joints += 1;
                end = next;
            }
            Some(b'e' | b'E') if is_digit(end + 1) => end = digits_from(end + 1),
            Some(b'e' | b'E') if matches!(word.get(end + 1), Some(b'-' | b'+')) && is_digit(end + 2) => end = digits_from(end + 2),
            _ => break,
        }
    }
    // four groups of up to three digits come first; a port or a prefix length may follow
    let mask = if dots == 4 { Mask::Address } else { Mask::Number };
    if word.get(end).is_none_or(|byte| class(*byte) & ALPHA == 0) {
        return Some((mask, if word.get(end) == Some(&b'%') { end + 1 } else { end }));
    }
    ends_number(word, end).then(|| (mask, run(word, end).end))
}

/// Whether the letters at `at` may stand directly behind a number: a unit, `Z`, or `T` and a time.
fn ends_number(word: &[u8], at: usize) -> bool {
    let letters = run(word, at);
    let is_e = matches!(word.get(at), Some(b'e' | b'E'));
    if letters.digits {
        let exponent = is_e && word.get(at + 1..letters.end).is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
        return word.get(at) == Some(&b'T') || exponent;
    }
    if is_e && letters.end == at + 1 && matches!(word.get(at + 1), Some(b'-' | b'+')) {
        return word.get(at + 2).is_some_and(u8::is_ascii_digit);
    }
    word.get(at..letters.end).is_some_and(|unit| unit == b"Z" || is_unit(unit))
}

/// Whether `word` may stand directly behind a number as its unit.
fn is_unit(word: &[u8]) -> bool {
    matches!(word, b"K" | b"k" | b"M" | b"G" | b"T" | b"m" | b"h" | b"d") || is_unit_word(word)
}

/// Whether `word`, behind a number and a space, is its unit: of time, of size, or a share.
pub(super) fn is_unit_word(word: &[u8]) -> bool {
    matches!(
        word,
        b"%" | b"B"
            | b"KB"
            | b"kB"
            | b"MB"
            | b"GB"
            | b"TB"
            | b"KiB"
            | b"MiB"
            | b"GiB"
            | b"TiB"
            | b"byte"
            | b"bytes"
            | b"Bytes"
            | b"ns"
            | b"us"
            | b"ms"
            | b"s"
            | b"msec"
            | b"msecs"
            | b"sec"
            | b"secs"
            | b"second"
            | b"seconds"
            | b"min"
            | b"mins"
            | b"minute"
            | b"minutes"
            | b"hour"
            | b"hours"
            | b"day"
            | b"days"
            | b"microseconds"
            | b"milliseconds"
    )
}

/// Whether `word` is the short name of a month or a day of the week, as dates have them.
pub(super) fn is_date_word(word: &[u8]) -> bool {
    matches!(
        word.strip_suffix(b",").unwrap_or(word),
        b"Mon"
            | b"Tue"
            | b"Wed"
            | b"Thu"
            | b"Fri"
            | b"Sat"
            | b"Sun"
            | b"Jan"
            | b"Feb"
            | b"Mar"
            | b"Apr"
            | b"May"
            | b"Jun"
            | b"Jul"
            | b"Aug"
            | b"Sep"
            | b"Oct"
            | b"Nov"
            | b"Dec"
    )
}
