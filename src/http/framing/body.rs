//! Bodies in chunks, followed byte for byte: sizes and what stands around them, never the data.

use memchr::memchr;

use super::head::{Flaw, is_plain, malformed};

/// The longest line with a chunk's size, extensions included.
const MAX_LINE: usize = 256;
/// The most bytes behind the last chunk.
const MAX_TRAILER: usize = 4096;

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// At a line with a size.
    Size,
    /// In a chunk with so many bytes left.
    Data(u64),
    /// At the line end behind a chunk.
    End,
    /// Behind the last chunk, so many bytes into what may stand there.
    Trailer(usize),
    /// Behind the body.
    Done,
}

const BAD_SIZE: Flaw = malformed("bad_chunk", "a chunk begins with its size in hexadecimal digits and CRLF");
const LONG_LINE: Flaw = malformed("bad_chunk", "the line with a chunk's size is longer than 256 bytes");
const BAD_END: Flaw = malformed("bad_chunk", "a chunk ends with CRLF, right behind its bytes");
const BAD_TRAILER: Flaw = malformed("bad_trailer", "what stands behind the last chunk is header lines and an empty one, 4 KiB at most");

impl Chunk {
    /// Goes on over `bytes`; how many of them are whole pieces of the body, and where the next one stands.
    pub(super) fn feed(mut self, bytes: &[u8]) -> (usize, Result<Chunk, Flaw>) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let step = match self {
                Chunk::Done => return (at, Ok(self)),
                _ if rest.is_empty() => return (at, Ok(self)),
                Chunk::Data(left) => {
                    let here = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - u64::try_from(here).unwrap_or(left);
                    Ok(Some((here, if left == 0 { Chunk::End } else { Chunk::Data(left) })))
                }
                Chunk::End => match rest {
                    [b'\r', b'\n', ..] => Ok(Some((2, Chunk::Size))),
                    b"\r" => Ok(None),
                    _ => Err(BAD_END),
                },
                Chunk::Size => {
                    size(rest).map(|size| size.map(|(len, size)| (len, if size == 0 { Chunk::Trailer(0) } else { Chunk::Data(size) })))
                }
                Chunk::Trailer(before) => trailer(rest, before),
            };
            match step {
                Ok(Some((len, next))) => {
                    at += len;
                    self = next;
                }
                Ok(None) => return (at, Ok(self)),
                Err(flaw) => return (at, Err(flaw)),
            }
        }
    }

    /// What ends the body for who has read so far and knows nothing of the flaw.
    pub(super) fn ending(self) -> &'static [u8] {
        match self {
            Chunk::Size => b"0\r\n\r\n",
            Chunk::End => b"\r\n0\r\n\r\n",
            Chunk::Trailer(_) => b"\r\n",
            // flaws are found in lines, never in data
            Chunk::Data(_) | Chunk::Done => b"",
        }
    }
}

/// The line with a size: how long it is, and the size. `None` while it is not whole.
fn size(rest: &[u8]) -> Result<Option<(usize, u64)>, Flaw> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // more digits than a size can have
    if digits > 16 || (digits == 0 && !rest.is_empty()) {
        return Err(BAD_SIZE);
    }
    match rest.get(digits) {
        None | Some(b'\r' | b';') => {}
        Some(_) => return Err(BAD_SIZE),
    }
    let shown = rest.get(..MAX_LINE).unwrap_or(rest);
    let Some(end) = memchr(b'\n', shown) else {
        return if rest.len() >= MAX_LINE { Err(LONG_LINE) } else { Ok(None) };
    };
    let line = shown.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BAD_SIZE)?;
    let (size, extension) = line.split_at_checked(digits).ok_or(BAD_SIZE)?;
    if !is_plain(extension) {
        return Err(BAD_SIZE);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(BAD_SIZE)?;
    Ok(Some((end + 1, size)))
}

/// A line behind the last chunk. `None` while it is not whole.
fn trailer(rest: &[u8], before: usize) -> Result<Option<(usize, Chunk)>, Flaw> {
    let line = memchr(b'\n', rest);
    let behind = before + line.map_or(rest.len(), |end| end + 1);
    if behind > MAX_TRAILER {
        return Err(BAD_TRAILER);
    }
    let Some(end) = line else { return Ok(None) };
    let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BAD_TRAILER)?;
    if line.is_empty() {
        return Ok(Some((end + 1, Chunk::Done)));
    }
    let named = memchr(b':', line).is_some_and(|colon| colon > 0) && !matches!(line, [b' ' | b'\t', ..]) && is_plain(line);
    if named { Ok(Some((end + 1, Chunk::Trailer(behind)))) } else { Err(BAD_TRAILER) }
}
