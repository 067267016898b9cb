//! The terminal that a command was started from. A pipe on standard input does not answer questions in its place.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const ERASE: [u8; 2] = [0x08, 0x7f];
const ERASE_LINE: u8 = 0x15;
/// Nobody types more than this.
const LONGEST: usize = 8192;

/// Where somebody sits.
pub(super) struct Terminal(File);

impl Terminal {
    /// The controlling terminal, if there is one.
    pub(super) fn open() -> Option<Terminal> {
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        tcgetattr(&file).is_ok().then_some(Terminal(file))
    }

    /// Asks for a line.
    pub(super) fn line(&mut self, question: &str) -> io::Result<String> {
        self.say(question)?;
        let mut typed = Vec::new();
        while let Some(byte) = self.byte()?.filter(|byte| *byte != b'\n') {
            typed.push(byte);
            typed.truncate(LONGEST);
        }
        text_of(typed)
    }

    /// Asks for a line that is not shown.
    pub(super) fn secret(&mut self, question: &str) -> io::Result<String> {
        let hidden = Hidden::on(&self.0)?;
        // only now: whatever is typed in answer to it is hidden already
        self.say(question)?;
        let typed = self.unseen();
        drop(hidden);
        self.say("\n")?;
        typed
    }

    /// What the terminal itself does while it shows a line, as long as it does not.
    fn unseen(&mut self) -> io::Result<String> {
        let mut typed = Vec::new();
        while let Some(byte) = self.byte()? {
            match byte {
                b'\n' | b'\r' | END => break,
                INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "called off")),
                ERASE_LINE => typed.clear(),
                // a character may be of several bytes
                byte if ERASE.contains(&byte) => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
                byte if typed.len() < LONGEST => typed.push(byte),
                _ => {}
            }
        }
        text_of(typed)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush())
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.0.read(&mut byte)? == 1).then_some(byte[0]))
    }
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// While it lives, nothing that is typed is shown, and no key ends the process: that would leave the terminal so.
struct Hidden(File, Termios);

impl Hidden {
    fn on(terminal: &File) -> io::Result<Hidden> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Hidden(terminal, before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // there is no other way to give it back
        tcsetattr(&self.0, OptionalActions::Flush, &self.1).ok();
    }
}
