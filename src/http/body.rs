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
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{self, MapDeserializer, SeqDeserializer},
    },
};

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
                if request.headers().contains_key(header::CONTENT_TYPE) {
                    let detail = "send a body as application/json";
                    return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
                }
                // nothing was sent at all: say which field is missing, as if none had been given
                return Ok(Body { value: parsed(b"{}")?, bytes });
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

/// A query. `T` denies unknown fields; a parameter may stand there once, unless it is a
/// list; one left empty is as good as left out.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(query(request.query_string()).map(Query).map_err(|error| {
            let (code, detail) = strict::explain(&error);
            ApiError::new(ErrorKind::Invalid, "invalid", "the query is not understood").at("", code, detail)
        }))
    }
}

fn query<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(text).map_err(|error| error.to_string())?;
    let mut fields: Vec<(String, Parameter)> = Vec::new();
    for (name, value) in pairs {
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, parameter)) => parameter.further.push(value),
            None => fields.push((name.clone(), Parameter { name, value, further: Vec::new() })),
        }
    }
    T::deserialize(MapDeserializer::<_, value::Error>::new(fields.into_iter())).map_err(|error| error.to_string())
}

/// A parameter's value; an empty one is none to whoever asks for an option, and one that was repeated is for lists.
struct Parameter {
    name: String,
    value: String,
    further: Vec<String>,
}

impl Parameter {
    fn only(self) -> Result<String, value::Error> {
        if self.further.is_empty() { Ok(self.value) } else { Err(value::Error::custom(format!("duplicate field `{}`", self.name))) }
    }
}

impl IntoDeserializer<'_> for Parameter {
    type Deserializer = Parameter;

    fn into_deserializer(self) -> Parameter {
        self
    }
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_string(self.only()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        let values = std::iter::once(self.value).chain(self.further).filter(|value| !value.is_empty());
        visitor.visit_seq(SeqDeserializer::new(values))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        if self.value.is_empty() && self.further.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        let value = self.only()?;
        match value.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_string(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        IntoDeserializer::<value::Error>::into_deserializer(self.only()?).deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map
        struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{super::lists::Limit, *};

    #[test]
    fn a_list_is_asked_for_within_bounds() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            #[serde(default)]
            limit: Limit,
            cursor: Option<String>,
            severity: Option<opspilot_kernel::signal::Severity>,
            since: Option<opspilot_kernel::time::Timestamp>,
            after: Option<u64>,
            #[serde(default)]
            label: Vec<String>,
        }
        let asked = |text| query::<Asked>(text).map(|asked| asked.limit.0);
        assert_eq!(asked(""), Ok(50));
        assert_eq!(asked("limit=500"), Ok(500));
        for wrong in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=x",
            "limit=99999999999",
            "limit=1&limit=2",
            "limt=1",
            "limt=",
            "severity=x",
            "since=x",
            "after=x",
            "severity=error&severity=error",
            "cursor=&cursor=",
        ] {
            asked(wrong).expect_err(wrong);
        }
        assert_eq!(query::<Asked>("label=a%3Db&label=&label=c").unwrap().label, ["a=b", "c"]);
        let empty = query::<Asked>("limit=&cursor=&severity=&since=&after=&label=").unwrap();
        assert_eq!(empty, query("").unwrap(), "left empty is left out");
        let full = query::<Asked>("cursor=a%20b&severity=error&since=2026-01-01T00:00:00Z&after=7").unwrap();
        assert_eq!((full.cursor.as_deref(), full.after), (Some("a b"), Some(7)));
        assert!(full.severity.is_some() && full.since.is_some());
    }
}
