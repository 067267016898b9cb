//! `type: console`: a line for people on the standard output of the service.

use std::{
    io::{self, Write},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::carry::{Aside, Carry, Message, NotCarried};

pub(super) struct Console {
    pub(super) timeout: Duration,
    pub(super) aside: Aside,
}

impl Carry for Console {
    fn carry(&self, message: Message) -> BoxFuture<'static, Result<(), NotCarried>> {
        let line = shown(&message.subject);
        self.aside.run(self.timeout, move || {
            let mut out = io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()
        })
    }
}

/// The text without what could drive a terminal or pass for another line.
fn shown(text: &str) -> String {
    let drives = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if drives(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2_a_line_stays_one_line_and_drives_no_terminal() {
        assert_eq!(shown("a\r\nb\u{1b}[2J\u{202e}c\u{9b}1m\u{0}grün"), "a  b [2J c 1m grün");
    }
}
