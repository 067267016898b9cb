//! The API, as the command line and the demo use it: like any other client.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::Value as Json;

use super::Server;

/// Where a service listens unless it was told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:3000";

const ABSENT: &str = "\nis the service running? start it with `opspilot serve`, or set OPSPILOT_URL";

/// A service and a credential.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// Why a call did not work, as a person should read it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiFailure {
    /// There was no answer.
    #[error("no answer from {url}: {why}{hint}")]
    Unreachable {
        /// The address.
        url: String,
        /// What went wrong.
        why: String,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// The address is none.
    #[error("{0:?} is no address of a service; write http://HOST:PORT")]
    Address(String),
    /// The service refused.
    #[error("{text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The answer's `code`.
        code: String,
        /// In words.
        text: String,
    },
    /// The answer was none of the API's.
    #[error("{0} does not answer like an OpsPilot service")]
    Strange(String),
}

impl ApiFailure {
    /// Whether what was asked for may have happened all the same: the answer was lost, or is none that refuses.
    pub(crate) fn leaves_open(&self) -> bool {
        match self {
            ApiFailure::Address(_) => false,
            ApiFailure::Unreachable { .. } | ApiFailure::Strange(_) => true,
            ApiFailure::Refused { status, code, .. } => *status >= 500 && !matches!(code.as_str(), "clock_regression" | "no_executor"),
        }
    }
}

impl Api {
    /// The service that the flags or the environment name.
    pub(crate) fn of(server: &Server) -> Result<Api, ApiFailure> {
        Api::new(server.given_url().unwrap_or(DEFAULT_URL), server.given_token().map(str::to_owned))
    }

    /// The service at `url`.
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Api, ApiFailure> {
        let base = address(url)?;
        let strange = |_| ApiFailure::Strange(base.clone());
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("opspilot/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(strange)?;
        Ok(Api { http, base, token })
    }

    /// The same service, asked by somebody else.
    pub(crate) fn with_token(&self, token: &str) -> Api {
        Api { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Where the service is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The header that carries the credential.
    pub(crate) fn credential(&self) -> Option<(&'static str, String)> {
        let token = self.token.as_ref()?;
        Some(if token.starts_with("opk_") { ("X-API-Key", token.clone()) } else { ("Authorization", format!("Bearer {token}")) })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match self.credential() {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
    }

    /// `GET`, an answer in JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Json, ApiFailure> {
        self.answered(self.request(Method::GET, path)).await
    }

    /// `GET`, an answer in text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, ApiFailure> {
        let (status, body) = self.sent(self.request(Method::GET, path)).await?;
        match String::from_utf8(body) {
            Ok(text) if status.is_success() => Ok(text),
            Ok(text) => self.not_so(status.as_u16(), serde_json::from_str(&text).ok()).map(|report| report.to_string()),
            Err(_) => Err(ApiFailure::Strange(self.base.clone())),
        }
    }

    /// `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Json) -> Result<Json, ApiFailure> {
        self.answered(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of nothing but a header.
    pub(crate) async fn post_with(&self, path: &str, (name, value): (&str, &str)) -> Result<Json, ApiFailure> {
        self.answered(self.request(Method::POST, path).header(name, value)).await
    }

    /// `PATCH` of JSON.
    pub(crate) async fn patch(&self, path: &str, body: &Json) -> Result<Json, ApiFailure> {
        self.answered(self.request(Method::PATCH, path).json(body)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Json, ApiFailure> {
        self.answered(self.request(Method::DELETE, path)).await
    }

    /// `POST` of events, one JSON object on each line.
    pub(crate) async fn post_lines(&self, path: &str, lines: String) -> Result<Json, ApiFailure> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/x-ndjson").body(lines);
        self.answered(request).await
    }

    async fn answered(&self, request: RequestBuilder) -> Result<Json, ApiFailure> {
        let (status, body) = self.sent(request).await?;
        let json: Option<Json> = if body.is_empty() { Some(Json::Null) } else { serde_json::from_slice(&body).ok() };
        match json {
            Some(json) if status.is_success() => Ok(json),
            json => self.not_so(status.as_u16(), json),
        }
    }

    async fn sent(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), ApiFailure> {
        let unreachable = |error: reqwest::Error| {
            let (why, absent) = root_cause(&error);
            let hint = if absent || error.is_timeout() { ABSENT } else { "" };
            ApiFailure::Unreachable { url: self.base.clone(), why, hint }
        };
        let answer = request.send().await.map_err(unreachable)?;
        Ok((answer.status(), answer.bytes().await.map_err(unreachable)?.into()))
    }

    /// An answer that is not what was asked for.
    fn not_so(&self, status: u16, json: Option<Json>) -> Result<Json, ApiFailure> {
        match json {
            // bad health is still a report; a problem's status is a number
            Some(report) if report.get("status").is_some_and(Json::is_string) => Ok(report),
            Some(problem) if problem.get("title").is_some() => Err(refused(status, &problem, self.token.is_some())),
            _ => Err(ApiFailure::Strange(self.base.clone())),
        }
    }
}

/// The address, as paths are put behind it.
fn address(url: &str) -> Result<String, ApiFailure> {
    let base = url.trim_end_matches('/').to_owned();
    let named = reqwest::Url::parse(&base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if named { Ok(base) } else { Err(ApiFailure::Address(url.to_owned())) }
}

/// What an RFC 9457 answer says, with every single error.
fn refused(status: u16, problem: &Json, with_token: bool) -> ApiFailure {
    let field = |key: &str| problem.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
    let mut text = match (field("title"), field("detail")) {
        (title, detail) if detail.is_empty() => title,
        (_, detail) => detail,
    };
    for error in problem.get("errors").and_then(Json::as_array).into_iter().flatten() {
        let part = |key: &str| error.get(key).and_then(Json::as_str).unwrap_or("");
        text.push_str(&format!("\n  {} {}", part("pointer"), part("detail")));
    }
    // the token of an approval is another one than the caller's own
    if status == 401 && field("code") != "bad_token" {
        text = if with_token { unauthorized(true).to_owned() } else { format!("{text}\n{}", unauthorized(false)) };
    }
    ApiFailure::Refused { status, code: field("code"), text }
}

/// What somebody should know whom the service does not let in.
pub(super) fn unauthorized(with_token: bool) -> &'static str {
    if with_token {
        "the service does not accept this token: wrong, expired or revoked"
    } else {
        "set OPSPILOT_TOKEN to an API key, or to the token of a log-in"
    }
}

/// The innermost reason, because "connection refused" says more than "error sending request"; and whether it means that
/// nobody listens there.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> (String, bool) {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let kind = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    (inner.to_string(), matches!(kind, Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::TimedOut)))
}

/// Text as part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_with_every_error() {
        let problem = serde_json::json!({"title":"Unprocessable","detail":"2 fields are wrong","code":"invalid",
            "errors":[{"pointer":"/role","code":"x","detail":"unknown role"}]});
        let ApiFailure::Refused { status, code, text } = refused(422, &problem, true) else { panic!() };
        assert_eq!((status, code.as_str(), text.as_str()), (422, "invalid", "2 fields are wrong\n  /role unknown role"));
    }

    #[test]
    fn whoever_is_not_let_in_learns_whether_the_token_is_missing_or_bad() {
        let problem = serde_json::json!({"title":"Unauthorized","detail":"log in"});
        assert!(refused(401, &problem, true).to_string().contains("wrong, expired or revoked"));
        assert!(refused(401, &problem, false).to_string().contains("set OPSPILOT_TOKEN"));
    }

    #[test]
    fn a_bad_approval_token_is_not_taken_for_a_bad_log_in() {
        let problem = serde_json::json!({"title":"Unauthorized","detail":"this is no valid approval token","code":"bad_token"});
        assert_eq!(refused(401, &problem, true).to_string(), "this is no valid approval token");
    }

    #[test]
    fn only_an_answer_that_refuses_says_that_nothing_happened() {
        let of = |status, code: &str| refused(status, &serde_json::json!({"title":"x","code":code}), true);
        for sure in
            [of(401, "bad_token"), of(409, "target_busy"), of(410, "token_expired"), of(503, "clock_regression"), of(503, "no_executor")]
        {
            assert!(!sure.leaves_open(), "{sure:?}");
        }
        let lost = ApiFailure::Unreachable { url: String::new(), why: String::new(), hint: "" };
        for unsure in [of(500, "internal"), of(503, "unavailable"), ApiFailure::Strange(String::new()), lost] {
            assert!(unsure.leaves_open(), "{unsure:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_from_a_service_that_does_not_answer() {
        for wrong in ["localhost:3000", "ops", "ftp://ops", ""] {
            let error = address(wrong).unwrap_err().to_string();
            assert!(error.contains("http://HOST:PORT"), "{wrong:?}: {error}");
        }
        assert_eq!(address("https://ops.example:8443/").unwrap(), "https://ops.example:8443");
    }

    #[test]
    fn text_in_a_query_cannot_become_another_parameter() {
        assert_eq!(encoded("a&b=c d/ü"), "a%26b%3Dc%20d%2F%C3%BC");
    }
}
