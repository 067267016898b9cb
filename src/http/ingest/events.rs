//! `POST /api/events`: the service's own way in.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web::{self, Bytes},
};
use opspilot_kernel::{error::ErrorKind, signal::SignalRef, time::Timestamp};
use opspilot_ledger::{SignalBatch, SignalBatchBuilder};
use serde_json::{Value, json};

use super::{
    body,
    parse::{self, Format, Parsed, Rejections},
};
use crate::http::{
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Ingester},
    idempotency::{IdempotencyKey, RESERVED_ID},
    state::AppState,
};

/// From this size on a body is parsed away from the thread that serves connections.
const PARSE_APART: usize = 1 << 20;

/// What a body was found to hold.
struct Read {
    batch: SignalBatch,
    events: u32,
    rejected: Rejections,
}

/// With a `seed` every event without an id gets one, so that a repeat of the request is found to be one.
fn read(bytes: &[u8], format: Format, now: Timestamp, seed: Option<&str>) -> Result<Read, parse::Malformed> {
    let mut batch = SignalBatchBuilder::with_capacity(now, bytes.len());
    let Parsed { events, rejected, .. } = match seed {
        None => parse::parse(bytes, format, now, &mut |signal| batch.push(signal))?,
        Some(seed) => parse::parse(bytes, format, now, &mut |signal| {
            if signal.id.is_empty() {
                let id = format!("{RESERVED_ID}{seed}:{}", batch.count());
                batch.push(&SignalRef { id: &id, ..signal.clone() });
            } else {
                batch.push(signal);
            }
        })?,
    };
    Ok(Read { batch: batch.seal(), events, rejected })
}

/// How the body says its events are separated.
fn format(headers: &HeaderMap) -> ApiResult<Format> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Json) };
    let refused = |detail: &str| Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    let format = match parts.next() {
        Some("application/json") => Format::Json,
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines") => Format::Lines,
        Some("application/x-www-form-urlencoded") => {
            return refused("this is what curl says unless it is told; add -H 'content-type: application/json' or application/x-ndjson");
        }
        _ => return refused("send application/json for an event or an array, application/x-ndjson for one event per line"),
    };
    match parts.find_map(|parameter| parameter.strip_prefix("charset=")).map(|charset| charset.trim_matches('"')) {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(format),
        Some(_) => refused("send the body as UTF-8"),
    }
}

/// Takes in signals: one event, an array, or one event per line.
///
/// The answer comes after the accepted ones are on the disk. Events that are not acceptable are named by
/// index and cost only themselves; if none is acceptable the answer is 422, or 400 if the document itself is malformed.
#[utoipa::path(post, path = "/api/events", tag = "signals",
    request_body(description = "An event, an array of events, or (application/x-ndjson) one event per line; at most 8 MiB", content(
        (Value = "application/json"), (String = "application/x-ndjson"))),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body is taken in once")),
    responses(
        (status = 202, description = "The accepted events are stored", body = Value),
        (status = 400, description = "Not readable", body = ProblemBody), (status = 408, description = "The body came too slowly", body = ProblemBody),
        (status = 413, description = "More than 8 MiB", body = ProblemBody), (status = 415, description = "Neither JSON nor NDJSON, or compressed otherwise than by gzip or zstd", body = ProblemBody),
        (status = 422, description = "No event was acceptable", body = ProblemBody), (status = 429, description = "The intake is full", body = ProblemBody),
        (status = 503, description = "The storage does not take writes", body = ProblemBody)))]
pub async fn post(
    caller: Guard<Ingester>,
    key: IdempotencyKey,
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    drop(caller);
    let format = format(request.headers())?;
    let mut place = state.intake.place();
    let bytes = body::read(&request, &mut payload.into_inner(), &mut place).await?;
    place.grow(bytes.len())?;
    let now = state.clock.now();
    let found = parse_body(&bytes, format, now, key.seed(&state)).await?;
    let Read { batch, events, rejected } = match found {
        Ok(found) => found,
        Err(malformed) => {
            state.intake.count_rejected(malformed.code);
            let error = ApiError::new(ErrorKind::Malformed, malformed.code, malformed.detail.as_str());
            return Err(error.at("", malformed.code, malformed.detail));
        }
    };
    for event in &rejected.named {
        state.intake.count_rejected(event.code);
    }
    if batch.count() == 0 {
        let single = format == Format::Json && bytes.trim_ascii_start().first() == Some(&b'{');
        return Err(none_acceptable(events, rejected, single));
    }
    if !key.is_given() {
        let stored = state.ledger.append(batch).await?;
        let duplicate = stored.duplicates.len();
        let mut answer = HttpResponse::Accepted();
        answer.content_type("application/json");
        return Ok(if rejected.total == 0 {
            answer
                .body(format!(r#"{{"accepted":{},"duplicate":{duplicate},"rejected":[],"last_seq":{}}}"#, stored.accepted, stored.last_seq))
        } else {
            answer.body(summary(stored.accepted, duplicate, &rejected, stored.last_seq).to_string())
        });
    }
    let ledger = state.ledger.clone();
    let answer = key.run_apart(&state, &bytes, async move {
        let stored = ledger.append(batch).await?;
        Ok((StatusCode::ACCEPTED, summary(stored.accepted, stored.duplicates.len(), &rejected, stored.last_seq)))
    });
    Ok(answer.await?.respond())
}

async fn parse_body(bytes: &Bytes, format: Format, now: Timestamp, seed: Option<String>) -> ApiResult<Result<Read, parse::Malformed>> {
    if bytes.len() < PARSE_APART {
        return Ok(read(bytes, format, now, seed.as_deref()));
    }
    let bytes = bytes.clone();
    web::block(move || read(&bytes, format, now, seed.as_deref())).await.map_err(ApiError::internal)
}

fn summary(accepted: u32, duplicate: usize, rejected: &Rejections, last_seq: u64) -> Value {
    let mut body = json!({ "accepted": accepted, "duplicate": duplicate, "rejected": rejected.named, "last_seq": last_seq });
    if let Some(body) = body.as_object_mut()
        && usize::try_from(rejected.total).is_ok_and(|total| total > rejected.named.len())
    {
        body.insert("rejected_total".to_owned(), rejected.total.into());
    }
    body
}

/// How many events a problem names: as many as a person would read.
const TOLD: usize = 100;

/// `single`: the body is an event and not a list of one, so that pointers start at the event.
fn none_acceptable(events: u32, rejected: Rejections, single: bool) -> ApiError {
    if events == 0 {
        return ApiError::new(ErrorKind::Invalid, "no_events", "the body holds no event");
    }
    let first = rejected.named.first();
    let detail = match first {
        Some(first) if events == 1 => first.detail.clone(),
        Some(first) => format!("none of the {events} events is acceptable; the first (index 0): {}", first.detail),
        None => format!("none of the {events} events is acceptable"),
    };
    // one event that contradicts itself is a malformed document; of a list, or of lines, each is one of its own
    let (kind, code) = match first {
        Some(first) if single && rejected.only_malformed() => (ErrorKind::Malformed, first.code),
        _ => (ErrorKind::Invalid, "invalid"),
    };
    let told: Vec<Value> = rejected.named.iter().take(TOLD).map(|event| json!(event)).collect();
    rejected.named.into_iter().take(TOLD).fold(ApiError::new(kind, code, detail).rejected(told), |error, event| {
        let pointer = if single { event.pointer } else { format!("/{}{}", event.index, event.pointer) };
        error.at(pointer, event.code, event.detail)
    })
}
