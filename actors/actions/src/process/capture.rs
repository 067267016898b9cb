//! Output as it is kept: the head and the tail, and how much lies between them.

/// Keeps the first and the last half of so many bytes.
#[derive(Debug)]
pub(crate) struct Capture {
    half: usize,
    head: Vec<u8>,
    /// At most twice as long as it is kept, so that it is moved rarely.
    tail: Vec<u8>,
    total: u64,
}

impl Capture {
    pub(crate) fn new(bytes: u64) -> Capture {
        Capture { half: usize::try_from(bytes / 2).unwrap_or(usize::MAX / 4), head: Vec::new(), tail: Vec::new(), total: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let room = self.half.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let newest = rest.get(rest.len().saturating_sub(self.half)..).unwrap_or_default();
        self.tail.extend_from_slice(newest);
        if self.tail.len() > self.half.saturating_mul(2) {
            self.tail.drain(..self.tail.len().saturating_sub(self.half));
        }
    }

    /// How many bytes are kept of neither.
    fn dropped(&self) -> u64 {
        let kept = self.head.len() + self.tail.len().min(self.half);
        self.total.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX))
    }

    /// What is kept as text, and whether something is missing. Control characters stay as they are: whoever shows it
    /// must not let them through. The `secrets` are covered.
    pub(crate) fn text(&self, secrets: &[String]) -> (String, bool) {
        let tail = self.tail.get(self.tail.len().saturating_sub(self.half)..).unwrap_or_default();
        let dropped = self.dropped();
        let mut text = if dropped == 0 {
            String::from_utf8_lossy(&[&self.head, tail].concat()).into_owned()
        } else {
            let (head, tail) = (String::from_utf8_lossy(whole(&self.head)), String::from_utf8_lossy(begun(tail)));
            format!("{head}\n[… {dropped} bytes left out …]\n{tail}")
        };
        for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
            text = text.replace(secret.as_str(), "[secret]");
        }
        (text, dropped > 0)
    }
}

/// A shorter value may stand in the output for other reasons.
const SHORTEST_SECRET: usize = 6;

/// Without a character at the end that was cut.
fn whole(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or(bytes),
        _ => bytes,
    }
}

/// Without the rest of a character at the beginning that was cut.
fn begun(bytes: &[u8]) -> &[u8] {
    let rest = bytes.iter().take(3).take_while(|byte| *byte & 0b1100_0000 == 0b1000_0000).count();
    bytes.get(rest..).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_as_it_is() {
        let mut capture = Capture::new(64);
        capture.push("grüße\n\u{1b}[31m".as_bytes());
        capture.push(&[0, 255, b'!']);
        assert_eq!(capture.text(&[]), ("grüße\n\u{1b}[31m\0\u{fffd}!".to_owned(), false));
    }

    #[test]
    fn what_does_not_fit_is_kept_as_head_and_tail_however_it_comes() {
        let all: Vec<u8> = (0..1000_u32).flat_map(|number| format!("{number:04} ").into_bytes()).collect();
        for piece in [1, 7, 64, 4999, 5000] {
            let mut capture = Capture::new(40);
            all.chunks(piece).for_each(|chunk| capture.push(chunk));
            let (text, truncated) = capture.text(&[]);
            assert_eq!(text, "0000 0001 0002 0003 \n[… 4960 bytes left out …]\n0996 0997 0998 0999 ", "in pieces of {piece}");
            assert!(truncated);
        }
    }

    #[test]
    fn a_character_that_is_cut_is_left_out() {
        let mut capture = Capture::new(6);
        capture.push("ab€xxxxx€cd".as_bytes());
        assert_eq!(capture.text(&[]).0, "ab\n[… 9 bytes left out …]\ncd");
    }

    #[test]
    fn p14_the_value_of_a_variable_is_covered() {
        let mut capture = Capture::new(1000);
        capture.push(b"token=hunter2-hunter2 x=1");
        assert_eq!(capture.text(&["hunter2-hunter2".to_owned(), "1".to_owned()]).0, "token=[secret] x=1");
    }

    #[test]
    fn memory_is_bounded_whatever_is_written() {
        let mut capture = Capture::new(1 << 16);
        let chunk = vec![b'x'; 1 << 16];
        (0..4096).for_each(|_| capture.push(&chunk));
        assert!(capture.head.capacity() + capture.tail.capacity() < 1 << 19);
        assert_eq!(capture.dropped(), 4096 * (1 << 16) - (1 << 16));
    }
}
