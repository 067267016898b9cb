//! Bodies and queries, read strictly and within bounds.

use std::{
    future::{Future, Ready, ready},
    pin::Pin,
    time::Duration,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
    web::{self, Bytes, BytesMut},
};
use futures_util::StreamExt as _;
use opspilot_kernel::error::ErrorKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    error::{ApiError, ApiResult},
    state::AppState,
    strict,
};

/// How large a JSON body may be, ingest apart.
pub const MAX_BODY: usize = 1 << 20;
/// How long a client may take to send its body, unless the settings say otherwise.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Reads a whole body of at most `limit` bytes before the deadline.
///
/// Returns 413 as soon as the limit is passed, by what the client announces or
/// by what it sends, and 408 at the deadline; both close the connection.
pub async fn read_bounded(request: &HttpRequest, payload: &mut Payload, limit: usize) -> ApiResult<Bytes> {
    let too_large = || {
        let detail = format!("the body is larger than {limit} bytes");
        ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let read = async {
        let mut body = BytesMut::with_capacity(announced.unwrap_or(0).min(64 << 10));
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| ApiError::new(ErrorKind::Malformed, "malformed_body", "the body broke off").and_close())?;
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    let deadline = request.app_data::<web::Data<AppState>>().map_or(BODY_DEADLINE, |state| state.settings.body_timeout);
    match tokio::time::timeout(deadline, read).await {
        Ok(body) => body,
        Err(_) => Err(ApiError::with_status(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time")),
    }
}

/// Whether the request says its body is JSON.
fn is_json(request: &HttpRequest) -> bool {
    let Some(kind) = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let mut parts = kind.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            let parameter = parameter.to_ascii_lowercase();
            parameter.strip_prefix("charset=").is_none_or(|charset| charset.trim_matches('"') == "utf-8")
        })
}

async fn read_json(request: &HttpRequest, payload: &mut Payload) -> ApiResult<Bytes> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "send the body as it is, uncompressed",
        ));
    }
    let body = read_bounded(request, payload, MAX_BODY).await?;
    if !body.is_empty() && !is_json(request) {
        let detail = "send the body as application/json";
        return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    Ok(body)
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    strict::read(bytes).map_err(|refusal| {
        if refusal.malformed {
            ApiError::new(ErrorKind::Malformed, refusal.code, refusal.detail)
        } else {
            ApiError::invalid(refusal.pointer, refusal.code, refusal.detail)
        }
    })
}

/// A JSON body that must be there. `T` denies unknown fields.
#[derive(Debug)]
pub struct Body<T> {
    /// What it says.
    pub value: T,
    /// Its bytes, for the fingerprint of an `Idempotency-Key`.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = ApiResult<Self>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read_json(&request, &mut payload).await?;
            if bytes.is_empty() && !is_json(&request) {
                let detail = "send a body as application/json";
                return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
            }
            Ok(Body { value: parsed(&bytes)?, bytes })
        })
    }
}

/// A JSON body that may be left out: then it says what `T::default()` says.
#[derive(Debug)]
pub struct OptionalBody<T> {
    /// What it says.
    pub value: T,
    /// Its bytes; empty if it was left out.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalBody<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = ApiResult<Self>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read_json(&request, &mut payload).await?;
            let value = if bytes.is_empty() { T::default() } else { parsed(&bytes)? };
            Ok(OptionalBody { value, bytes })
        })
    }
}

/// A query. `T` denies unknown fields; a parameter may stand there once.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(serde_urlencoded::from_str(request.query_string()).map(Query).map_err(|error| {
            let text = error.to_string();
            let (code, detail) = strict::explain(&text);
            ApiError::new(ErrorKind::Invalid, "invalid", "the query is not understood").at("", code, detail)
        }))
    }
}

/// The most a list may be asked for at once.
pub const MAX_LIMIT: u32 = 500;

/// How many items a list is asked for: 1 to 500, by default 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Limit(pub u32);

impl Default for Limit {
    fn default() -> Limit {
        Limit(50)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match text.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(Limit(limit)),
            _ => Err(serde::de::Error::custom("limit is a number from 1 to 500")),
        }
    }
}

/// The answer to a list: some items, and where the next ones begin.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Ask with `cursor=` this for the next ones; null at the end.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_within_bounds() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            #[serde(default)]
            limit: Limit,
        }
        let asked = |query| serde_urlencoded::from_str::<Asked>(query).map(|asked| asked.limit.0).map_err(|error| error.to_string());
        assert_eq!(asked(""), Ok(50));
        assert_eq!(asked("limit=500"), Ok(500));
        for wrong in ["limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "limit=99999999999", "limit=1&limit=2", "limt=1"] {
            asked(wrong).expect_err(wrong);
        }
    }
}
