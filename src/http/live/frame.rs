//! WebSocket frames (RFC 6455), as the feed needs them: text in, text out, everything bounded.

use actix_web::web::{Bytes, BytesMut};

/// How large a message from a client may be, fragments together.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The client said goodbye.
    Normal,
    /// The service stops.
    GoingAway,
    /// Not as the protocol has it.
    Protocol,
    /// Not a text.
    Unsupported,
    /// A text that is not UTF-8.
    NotUtf8,
    /// More than a client may send.
    Policy,
    /// A message beyond [`MAX_MESSAGE`].
    TooBig,
    /// Come back later: too slow, or the feed restarts.
    TryAgain,
    /// The session, the key or the ticket does not hold.
    Unauthenticated,
}

impl Code {
    const fn number(self) -> u16 {
        match self {
            Code::Normal => 1000,
            Code::GoingAway => 1001,
            Code::Protocol => 1002,
            Code::Unsupported => 1003,
            Code::NotUtf8 => 1007,
            Code::Policy => 1008,
            Code::TooBig => 1009,
            Code::TryAgain => 1013,
            Code::Unauthenticated => 4401,
        }
    }

    /// The code as a label of a metric.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Code::Normal => "1000",
            Code::GoingAway => "1001",
            Code::Protocol => "1002",
            Code::Unsupported => "1003",
            Code::NotUtf8 => "1007",
            Code::Policy => "1008",
            Code::TooBig => "1009",
            Code::TryAgain => "1013",
            Code::Unauthenticated => "4401",
        }
    }
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Text(String),
    Ping(Bytes),
    Pong,
    Close,
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn put(out: &mut BytesMut, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.extend_from_slice(&[0x80 | opcode]);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..=125), _) => out.extend_from_slice(&[len]),
        (_, Ok(len)) => {
            out.extend_from_slice(&[126]);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[127]);
            out.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a text.
pub(super) fn put_text(out: &mut BytesMut, text: &[u8]) {
    put(out, TEXT, text);
}

/// Appends "are you there?".
pub(super) fn put_ping(out: &mut BytesMut) {
    put(out, PING, b"");
}

/// Appends "I am".
pub(super) fn put_pong(out: &mut BytesMut, payload: &[u8]) {
    put(out, PONG, payload);
}

/// Appends a goodbye with its reason, which is short.
pub(super) fn put_close(out: &mut BytesMut, code: Code, reason: &str) {
    let payload = [&code.number().to_be_bytes(), reason.as_bytes()].concat();
    put(out, CLOSE, payload.get(..payload.len().min(125)).unwrap_or_default());
}

/// Takes frames apart; keeps at most one message and one frame head.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// The fragments of a message so far.
    message: Option<Vec<u8>>,
}

struct Head {
    opcode: u8,
    last: bool,
    len: usize,
    mask: [u8; 4],
    size: usize,
}

impl Decoder {
    /// Takes what the network brought.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing the client said; `None` until more of it is there. After an error nothing more is understood.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, Code> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.buffer.len() < head.size + head.len {
                return Ok(None);
            }
            let mut payload = self.buffer.split_to(head.size + head.len).split_off(head.size);
            payload.iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            if let Some(heard) = self.frame(&head, payload)? {
                return Ok(Some(heard));
            }
        }
    }

    fn head(&self) -> Result<Option<Head>, Code> {
        let [first, second, rest @ ..] = &*self.buffer else { return Ok(None) };
        let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
        let short = usize::from(second & 0x7f);
        let control = opcode >= CLOSE;
        // bits of extensions that were never agreed on, frames without a mask, and control frames in pieces
        if first & 0x70 != 0 || second & 0x80 == 0 || (control && (!last || short > 125)) {
            return Err(Code::Protocol);
        }
        let (len, rest, size) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((len, rest)) => (usize::from(u16::from_be_bytes(*len)), rest, 8),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX), rest, 14),
                None => return Ok(None),
            },
            len => (len, rest, 6),
        };
        if len > MAX_MESSAGE || self.message.as_ref().is_some_and(|so_far| !control && so_far.len() + len > MAX_MESSAGE) {
            return Err(Code::TooBig);
        }
        Ok(rest.first_chunk::<4>().map(|mask| Head { opcode, last, len, mask: *mask, size }))
    }

    fn frame(&mut self, head: &Head, payload: BytesMut) -> Result<Option<Heard>, Code> {
        match (head.opcode, self.message.take()) {
            (TEXT, None) if head.last => text(payload.to_vec()).map(Some),
            (TEXT, None) => {
                self.message = Some(payload.to_vec());
                Ok(None)
            }
            (0, Some(mut message)) => {
                message.extend_from_slice(&payload);
                if head.last {
                    return text(message).map(Some);
                }
                self.message = Some(message);
                Ok(None)
            }
            (opcode, message) => {
                self.message = message;
                match opcode {
                    PING => Ok(Some(Heard::Ping(payload.freeze()))),
                    PONG => Ok(Some(Heard::Pong)),
                    CLOSE => Ok(Some(Heard::Close)),
                    2 => Err(Code::Unsupported),
                    _ => Err(Code::Protocol),
                }
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<Heard, Code> {
    String::from_utf8(bytes).map(Heard::Text).map_err(|_| Code::NotUtf8)
}

#[cfg(test)]
#[allow(clippy::as_conversions, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=65_535 => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn all(bytes: &[u8]) -> Result<Vec<Heard>, Code> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        let mut heard = Vec::new();
        while let Some(one) = decoder.next()? {
            heard.push(one);
        }
        Ok(heard)
    }

    #[test]
    fn s7_what_is_not_allowed_closes_with_its_code() {
        let text = 0x80 | TEXT;
        for (name, bytes, code) in [
            ("64 KiB and one", client_frame(text, &vec![b'x'; MAX_MESSAGE + 1]), Code::TooBig),
            ("only announced", [&[text, 0xff][..], &u64::MAX.to_be_bytes()].concat(), Code::TooBig),
            ("in fragments", [client_frame(TEXT, &vec![b'x'; MAX_MESSAGE]), client_frame(0x80, b"x")].concat(), Code::TooBig),
            ("bad UTF-8", client_frame(text, b"\xff"), Code::NotUtf8),
            ("bad UTF-8 in fragments", [client_frame(TEXT, b"\xe2\x82"), client_frame(0x80, b"x")].concat(), Code::NotUtf8),
            ("binary", client_frame(0x82, b"x"), Code::Unsupported),
            ("no mask", vec![text, 1, b'x'], Code::Protocol),
            ("reserved bit", client_frame(0xc0 | TEXT, b"x"), Code::Protocol),
            ("reserved opcode", client_frame(0x83, b"x"), Code::Protocol),
            ("a fragment of nothing", client_frame(0x80, b"x"), Code::Protocol),
            ("a text within a text", [client_frame(TEXT, b"x"), client_frame(text, b"y")].concat(), Code::Protocol),
            ("a ping in fragments", client_frame(PING, b""), Code::Protocol),
            ("a long ping", client_frame(0x80 | PING, &[0; 126]), Code::Protocol),
        ] {
            assert_eq!(all(&bytes), Err(code), "{name}");
        }
        assert_eq!(all(&client_frame(text, &vec![b'x'; MAX_MESSAGE])).unwrap().len(), 1, "64 KiB is allowed");
    }

    #[test]
    fn fragments_make_one_text_with_pings_in_between() {
        let bytes =
            [client_frame(TEXT, b"\xe2\x82"), client_frame(0x80 | PING, b"p"), client_frame(0, b"\xac"), client_frame(0x80, b"!")].concat();
        let expected = vec![Heard::Ping(Bytes::from_static(b"p")), Heard::Text("€!".to_owned())];
        assert_eq!(all(&bytes), Ok(expected.clone()));
        let mut decoder = Decoder::default();
        let mut heard = Vec::new();
        for byte in bytes {
            decoder.feed(&[byte]);
            heard.extend(decoder.next().unwrap());
        }
        assert_eq!(heard, expected, "byte by byte");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(all(&bytes));
        }

        #[test]
        fn h9_what_was_cut_anywhere_is_put_together(text in ".{0,200}", cut in 0..250_usize) {
            let bytes = client_frame(0x80 | TEXT, text.as_bytes());
            let mut decoder = Decoder::default();
            let cut = cut.min(bytes.len());
            decoder.feed(&bytes[..cut]);
            let early = decoder.next().unwrap();
            decoder.feed(&bytes[cut..]);
            let late = decoder.next().unwrap();
            prop_assert_eq!(early.or(late), Some(Heard::Text(text)));
        }
    }
}
