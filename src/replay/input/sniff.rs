//! What a file is, by how it begins.

use std::{
    io::{self, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::{Format, csv};

/// The bytes of a file, decompressed if it is compressed.
pub(super) fn plain(mut reader: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    (&mut reader).take(4).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = BufReader::with_capacity(1 << 17, Cursor::new(magic).chain(reader));
    Ok(match (gzip, zstd) {
        (true, _) => Box::new(MultiGzDecoder::new(whole)),
        (_, true) => Box::new(zstd::Decoder::with_buffer(whole)?),
        _ => Box::new(whole),
    })
}

/// What the file seems to be written in.
pub(super) fn format(path: Option<&Path>, head: &[u8]) -> Format {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim_start();
    if first.starts_with(['{', '[']) {
        return Format::Ndjson;
    }
    let second = lines.next().unwrap_or_default();
    if csv::is_row(first) || csv::is_row(second) {
        return Format::Csv;
    }
    match path.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("csv" | "tsv") => Format::Csv,
        Some("ndjson" | "jsonl" | "json") => Format::Ndjson,
        _ => Format::Syslog,
    }
}
