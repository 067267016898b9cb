//! Reads a body that may be compressed, in bounded memory and time.
//!
//! actix would decompress by itself and without a bound; nothing here goes through its extractors.

use std::{
    borrow::Cow,
    io::{self, Read},
    time::Duration,
};

use actix_web::{
    HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web::{self, Bytes, BytesMut},
};
use futures_util::StreamExt as _;
use opspilot_kernel::error::ErrorKind;

use super::Place;
use crate::http::{
    body::BODY_DEADLINE,
    error::{ApiError, ApiResult},
};

/// How large a body may be, before and after decompression.
pub(crate) const MAX_BODY: usize = 8 << 20;
/// The largest window a zstd frame may ask for: as much as we would decompress, and so as much memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

fn coding(headers: &HeaderMap) -> ApiResult<Coding> {
    let refused = |detail: String| ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail);
    let mut named = headers.get_all(header::CONTENT_ENCODING);
    let Some(first) = named.next() else { return Ok(Coding::Identity) };
    let text = first.to_str().unwrap_or("?").trim().to_ascii_lowercase();
    if named.next().is_some() || text.contains(',') {
        return Err(refused("a body may be compressed once; send gzip, zstd, or no content-encoding".to_owned()));
    }
    match text.as_str() {
        "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(refused("this content-encoding is not known here; send gzip, zstd, or none".to_owned())),
    }
}

fn too_large(what: &str) -> ApiError {
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("{what} is larger than 8 MiB"))
}

/// Reads the whole body and decompresses it; what it holds meanwhile is counted in `place`.
///
/// 413 as soon as a bound is passed, 408 at the deadline, 415 for any other compression.
pub(crate) async fn read(request: &HttpRequest, payload: &mut Payload, place: &mut Place) -> ApiResult<Bytes> {
    read_within(request, payload, place, BODY_DEADLINE).await
}

async fn read_within(request: &HttpRequest, payload: &mut Payload, place: &mut Place, deadline: Duration) -> ApiResult<Bytes> {
    let coding = coding(request.headers())?;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large("the body"));
    }
    let raw = tokio::time::timeout(deadline, collect(payload, announced.unwrap_or(0), place)).await;
    let raw = raw.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} s", deadline.as_secs());
        Err(ApiError::with_status(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
    })?;
    match coding {
        Coding::Identity => Ok(raw),
        Coding::Gzip => {
            let length = raw.len();
            let source = flate2::bufread::MultiGzDecoder::new(io::Cursor::new(raw));
            unpack(Unpacking::new("gzip", source), length, place).await
        }
        Coding::Zstd => {
            let length = raw.len();
            let mut source = zstd::stream::read::Decoder::with_buffer(io::Cursor::new(raw)).map_err(ApiError::internal)?;
            source.window_log_max(ZSTD_WINDOW_LOG).map_err(ApiError::internal)?;
            // the window is memory of the decoder's own
            place.grow(1 << ZSTD_WINDOW_LOG)?;
            unpack(Unpacking::new("zstd", source), length, place).await
        }
    }
}

/// How much is reserved on the word of a client that has sent nothing yet.
const TRUSTED: usize = 256 << 10;

async fn collect(payload: &mut Payload, announced: usize, place: &mut Place) -> ApiResult<Bytes> {
    let mut body = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::new(ErrorKind::Malformed, "malformed_body", "the body broke off").and_close())?;
        if body.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len() > MAX_BODY {
            return Err(too_large("the body"));
        }
        place.grow(chunk.len()).map_err(ApiError::and_close)?;
        // a body of one piece, as most small ones are, is not copied
        if body.is_empty() && first.is_none() {
            first = Some(chunk);
            continue;
        }
        if let Some(first) = first.take() {
            body.reserve(announced.min(TRUSTED).max(first.len() + chunk.len()));
            body.extend_from_slice(&first);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(first.unwrap_or_else(|| body.freeze()))
}

/// How much is decompressed where the request is served, before and after; everybody else on that thread waits for it.
const AT_ONCE: usize = 64 << 10;

/// Decompresses a body of `length` bytes: small ones at once, others on a thread that nobody else waits for.
async fn unpack(mut body: Unpacking, length: usize, place: &mut Place) -> ApiResult<Bytes> {
    // many empty pieces are work too, though nothing comes of them
    if length <= AT_ONCE && body.unpack(AT_ONCE, place)? {
        return Ok(body.done());
    }
    // the room is held for as long as the work goes on, even if the client hangs up meanwhile
    let mut moved = place.moved();
    let unpacked = web::block(move || {
        let outcome = body.unpack(MAX_BODY, &mut moved);
        (outcome.map(|_| body.done()), moved)
    });
    let (outcome, moved) = unpacked.await.map_err(ApiError::internal)?;
    *place = moved;
    outcome
}

/// A body that is being decompressed.
struct Unpacking {
    name: &'static str,
    source: Box<dyn Read + Send>,
    body: Vec<u8>,
    piece: Vec<u8>,
}

impl Unpacking {
    fn new(name: &'static str, source: impl Read + Send + 'static) -> Unpacking {
        Unpacking { name, source: Box::new(source), body: Vec::new(), piece: vec![0; 32 << 10] }
    }

    /// Goes on until the end, or until there are `enough` bytes; whether it was the end.
    ///
    /// At most [`MAX_BODY`] bytes, a piece at a time: a bomb costs no more than the bound.
    fn unpack(&mut self, enough: usize, place: &mut Place) -> ApiResult<bool> {
        loop {
            let read = match self.source.read(&mut self.piece) {
                Ok(0) => return Ok(true),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ApiError::new(ErrorKind::Malformed, "bad_compression", reason(self.name, &error))),
            };
            if self.body.len() + read > MAX_BODY {
                return Err(too_large("the decompressed body"));
            }
            place.grow(read)?;
            self.body.extend_from_slice(self.piece.get(..read).unwrap_or_default());
            if self.body.len() >= enough && enough < MAX_BODY {
                return Ok(false);
            }
        }
    }

    fn done(self) -> Bytes {
        Bytes::from(self.body)
    }
}

fn reason(name: &str, error: &io::Error) -> String {
    let why: Cow<'_, str> = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too early".into(),
        _ => error.to_string().to_lowercase().into(),
    };
    format!("the body is not proper {name}: {why}")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use actix_web::{error::PayloadError, test::TestRequest};
    use prometheus::Registry;

    use super::*;
    use crate::http::ingest::Intake;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn status(answer: ApiResult<Bytes>) -> Result<Vec<u8>, (u16, &'static str)> {
        use actix_web::ResponseError as _;
        answer.map(|body| body.to_vec()).map_err(|error| (error.status_code().as_u16(), error.code()))
    }

    async fn send(encoding: Option<&str>, body: Vec<u8>, room: usize) -> Result<Vec<u8>, (u16, &'static str)> {
        let mut request = TestRequest::post();
        if let Some(encoding) = encoding {
            request = request.insert_header(("content-encoding", encoding));
        }
        let intake = Intake::new(room, &Registry::new()).unwrap();
        let (request, mut payload) = request.set_payload(body).to_http_parts();
        let answer = read(&request, &mut payload, &mut intake.place()).await;
        assert_eq!(intake.held(), 0, "all room is given back");
        status(answer)
    }

    const ROOM: usize = 64 << 20;

    #[actix_web::test]
    async fn compressed_bodies_are_read_as_what_they_were() {
        let text = b"hello hello hello ".repeat(1000);
        assert_eq!(send(None, text.clone(), ROOM).await, Ok(text.clone()));
        assert_eq!(send(Some("identity"), text.clone(), ROOM).await, Ok(text.clone()));
        for name in ["gzip", "GZip", "x-gzip"] {
            assert_eq!(send(Some(name), gzip(&text), ROOM).await, Ok(text.clone()));
        }
        assert_eq!(send(Some("gzip"), [gzip(&text), gzip(b"x")].concat(), ROOM).await, Ok([text.clone(), b"x".to_vec()].concat()));
        let frames = [zstd::encode_all(&*text, 1).unwrap(), zstd::encode_all(&b"x"[..], 19).unwrap()].concat();
        assert_eq!(send(Some("zstd"), frames, ROOM).await, Ok([text, b"x".to_vec()].concat()));
    }

    #[actix_web::test]
    async fn h2_bombs_and_other_encodings_are_turned_away() {
        let zeros = vec![0_u8; 64 << 20];
        let gzip_bomb = gzip(&zeros);
        let zstd_bomb = zstd::encode_all(&*zeros, 1).unwrap();
        let exact = vec![b' '; MAX_BODY];
        assert_eq!(send(Some("gzip"), gzip(&exact), ROOM).await.map(|body| body.len()), Ok(MAX_BODY));
        for (name, encoding, body, expected) in [
            ("gzip bomb", Some("gzip"), gzip_bomb.clone(), (413, "too_large")),
            ("gzip bomb in gzip", Some("gzip, gzip"), gzip(&gzip_bomb), (415, "unsupported_encoding")),
            ("zstd bomb", Some("zstd"), zstd_bomb, (413, "too_large")),
            ("too large by itself", None, vec![b' '; MAX_BODY + 1], (413, "too_large")),
            ("zstd in gzip", Some("zstd,gzip"), vec![], (415, "unsupported_encoding")),
            ("brotli", Some("br"), vec![], (415, "unsupported_encoding")),
            ("deflate", Some("deflate"), vec![], (415, "unsupported_encoding")),
            ("snappy", Some("snappy"), vec![], (415, "unsupported_encoding")),
            ("no name", Some(""), vec![], (415, "unsupported_encoding")),
            ("not gzip", Some("gzip"), b"{}".to_vec(), (400, "bad_compression")),
            ("not zstd", Some("zstd"), b"{}".to_vec(), (400, "bad_compression")),
            ("cut gzip", Some("gzip"), gzip(b"hello")[..12].to_vec(), (400, "bad_compression")),
            ("a window beyond the bound", Some("zstd"), wide_window(), (400, "bad_compression")),
        ] {
            assert_eq!(send(encoding, body, ROOM).await, Err(expected), "{name}");
        }
        let mut cut = zstd::encode_all(&b"hello hello"[..], 1).unwrap();
        cut.truncate(cut.len() - 1);
        assert_eq!(send(Some("zstd"), cut, ROOM).await, Err((400, "bad_compression")), "cut zstd");
    }

    /// A frame that makes a naive decoder take 128 MiB before the first byte.
    fn wide_window() -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        encoder.finish().unwrap()
    }

    /// Zeros, and on what threads they were read.
    struct Zeros {
        left: usize,
        threads: std::sync::mpsc::Sender<std::thread::ThreadId>,
    }

    impl Read for Zeros {
        fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
            self.threads.send(std::thread::current().id()).unwrap();
            let read = piece.len().min(self.left);
            self.left -= read;
            Ok(read)
        }
    }

    #[actix_web::test]
    async fn a_large_body_is_decompressed_while_the_worker_serves_others() {
        // compressed, decompressed, read by the worker
        for (length, left, own) in [(1000, 60_000, 60_000), (1000, 4 << 20, AT_ONCE), (AT_ONCE + 1, 4 << 20, 0)] {
            let (threads, read_by) = std::sync::mpsc::channel();
            let intake = Intake::new(ROOM, &Registry::new()).unwrap();
            let mut place = intake.place();
            let body = unpack(Unpacking::new("gzip", Zeros { left, threads }), length, &mut place).await;
            assert_eq!(body.map(|body| body.len()).map_err(|error| error.code()), Ok(left));
            let here = read_by.iter().filter(|thread| *thread == std::thread::current().id()).count();
            // and the read that finds the end
            let expected = own.div_ceil(32 << 10) + usize::from(own == left);
            assert_eq!(here, expected, "{length} {left}");
            assert!(intake.held() >= left, "the room is still held");
            drop(place);
            assert_eq!(intake.held(), 0);
        }
    }

    #[actix_web::test]
    async fn all_bodies_together_are_bounded() {
        assert_eq!(send(None, vec![0; 1 << 20], 512 << 10).await, Err((429, "busy")));
        assert_eq!(send(Some("gzip"), gzip(&vec![0; 1 << 20]), 512 << 10).await, Err((429, "busy")));
        assert_eq!(send(None, vec![0; 1 << 19], 512 << 10).await.map(|body| body.len()), Ok(1 << 19));
    }

    #[actix_web::test]
    async fn s8_a_body_that_does_not_come_is_given_up() {
        tokio::time::pause();
        let intake = Intake::new(ROOM, &Registry::new()).unwrap();
        let request = TestRequest::post().to_http_request();
        let never = futures_util::stream::iter([Ok(Bytes::from_static(b"{"))])
            .chain(futures_util::stream::pending::<Result<Bytes, PayloadError>>());
        let mut payload = Payload::Stream { payload: never.boxed_local() };
        let started = tokio::time::Instant::now();
        let answer = read(&request, &mut payload, &mut intake.place()).await;
        assert_eq!(status(answer), Err((408, "timeout")));
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[actix_web::test]
    async fn a_length_beyond_the_bound_is_refused_unread() {
        let intake = Intake::new(ROOM, &Registry::new()).unwrap();
        let request = TestRequest::post().insert_header(("content-length", "8388609")).to_http_request();
        let mut payload = Payload::Stream { payload: futures_util::stream::pending().boxed_local() };
        assert_eq!(status(read(&request, &mut payload, &mut intake.place()).await), Err((413, "too_large")));
    }
}
