//! No bytes make the syslog parser panic, and no line is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opspilot_connectors::syslog::{Offset, Parser, Years, signal};
use opspilot_kernel::{
    codec::{PieceBuilder, records},
    time::Timestamp,
};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parser = Parser::new(Years::until(Timestamp::from_millis(1_800_000_000_000)), Offset::UTC);
    let mut labels = Vec::new();
    for line in text.lines() {
        let message = parser.parse(line);
        let signal = signal(&message, Timestamp::ZERO, "fuzz", &mut labels);
        assert!(!signal.message.is_empty() && !signal.source.is_empty());
        let mut piece = PieceBuilder::default();
        piece.push(&signal);
        let bytes = piece.into_bytes();
        let read = records(&bytes).next().map(|record| record.decode());
        assert!(matches!(read, Some(Ok(read)) if read == signal));
    }
});
