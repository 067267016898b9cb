//! Compressed bytes of a row: zstd frames one after another, each a piece of whole records.

use std::cell::RefCell;

use crate::error::LedgerError;

/// Level 1: beats lz4 on size at its speed; level 3 gains nothing here.
const LEVEL: i32 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// One frame. `None` only if zstd cannot get memory; the writer then tries again.
pub(crate) fn compress(piece: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(LEVEL).ok();
            // four bytes a frame: damage on the disk must never become a signal that nobody sent
            slot.as_mut()?.include_checksum(true).ok()?;
        }
        slot.as_mut()?.compress(piece).ok()
    })
}

/// The pieces of `frames`, which together must have `raw_len` bytes.
pub(crate) fn decompress(frames: &[u8], raw_len: usize) -> Result<Vec<Vec<u8>>, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged(format!("signals: {what}"));
    let mut pieces = Vec::new();
    let (mut rest, mut left) = (frames, raw_len);
    while !rest.is_empty() {
        let len = zstd::zstd_safe::find_frame_compressed_size(rest).map_err(|_| damaged("not a frame"))?;
        let (frame, behind) = rest.split_at_checked(len).ok_or_else(|| damaged("a frame is cut short"))?;
        let size = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten().and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= left).ok_or_else(|| damaged("a frame is larger than its row says"))?;
        let piece = DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Decompressor::new().ok();
            }
            let decompressor = slot.as_mut().ok_or_else(|| LedgerError::Internal("no memory to decompress".to_owned()))?;
            decompressor.decompress(frame, size).map_err(|error| damaged(&error.to_string()))
        })?;
        left -= piece.len();
        pieces.push(piece);
        rest = behind;
    }
    if left == 0 { Ok(pieces) } else { Err(damaged("a frame is missing")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_one_after_another_come_back_as_pieces() {
        let (a, b) = (vec![7_u8; 40_000], b"short".to_vec());
        let frames = [compress(&a).unwrap(), compress(&b).unwrap()].concat();
        assert_eq!(decompress(&frames, a.len() + b.len()).unwrap(), [a.clone(), b]);
        assert!(matches!(decompress(&frames, a.len()), Err(LedgerError::Damaged(_))), "more than the row says");
        assert!(matches!(decompress(&frames[..frames.len() - 2], a.len() + 5), Err(LedgerError::Damaged(_))), "cut short");
        assert!(matches!(decompress(&frames, a.len() + 6), Err(LedgerError::Damaged(_))), "less than the row says");
    }
}
