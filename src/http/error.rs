//! Errors as the API gives them: RFC 9457 problems, made in one place.
//!
//! Handlers return [`ApiError`]. What went wrong inside is logged with the
//! request's id and never leaves the process.

use std::fmt;

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
};
use opspilot_kernel::{config::Problem, error::ErrorKind};
use opspilot_ledger::LedgerError;
use serde::Serialize;

/// The result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// One thing wrong with a request, and where.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body, as an RFC 6901 pointer; for a query `/name`.
    pub pointer: String,
    /// What is wrong, for programs.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// The body of every answer that is an error (RFC 9457).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Names the kind of problem: `urn:opspilot:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// Names this answer: `urn:opspilot:request:<id>`, as the log knows it.
    pub instance: String,
    /// What went wrong, for programs.
    pub code: String,
    /// What is wrong with the request, thing by thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Events that were sent and not taken: `index`, `code` and `detail` of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<serde_json::Value>,
}

/// An answer that is an error.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

/// Boxed, so that a `Result` stays as small as what it holds when all is well.
#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<u64>,
    close: bool,
    allow: Option<String>,
    cause: Option<String>,
    rejected: Vec<serde_json::Value>,
}

/// The one place where a kind of error becomes a status.
const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Expired => StatusCode::GONE,
        ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    /// An error of `kind`; `code` is for programs, `detail` for people.
    pub fn new(kind: ErrorKind, code: &'static str, detail: impl Into<String>) -> ApiError {
        ApiError::with_status(status_of(kind), code, detail)
    }

    /// An error that only HTTP knows, such as 405 or 413.
    pub fn with_status(status: StatusCode, code: &'static str, detail: impl Into<String>) -> ApiError {
        let retry_after = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        };
        let close = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE);
        ApiError(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after,
            close,
            allow: None,
            cause: None,
            rejected: Vec::new(),
        }))
    }

    /// 422, for one field.
    pub fn invalid(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> ApiError {
        let detail = detail.into();
        ApiError::new(ErrorKind::Invalid, "invalid", detail.clone()).at(pointer, code, detail)
    }

    /// 422, for a cursor that the list never gave.
    pub fn bad_cursor() -> ApiError {
        ApiError::invalid("/cursor", "bad_cursor", "the cursor is not one that this list gave")
    }

    /// 404, for a thing that is not there.
    pub fn not_found(what: impl fmt::Display) -> ApiError {
        ApiError::new(ErrorKind::NotFound, "not_found", format!("there is no {what}"))
    }

    /// 500; `cause` is logged and not returned.
    pub fn internal(cause: impl fmt::Display) -> ApiError {
        let mut error =
            ApiError::new(ErrorKind::Internal, "internal", "something went wrong here; the log has more under this request's id");
        error.0.cause = Some(cause.to_string());
        error
    }

    /// 422, for every problem a configuration has.
    pub fn problems(code: &'static str, detail: &str, problems: Vec<Problem>) -> ApiError {
        problems.into_iter().fold(ApiError::new(ErrorKind::Invalid, code, detail), |error, problem| {
            let text = match problem.suggestion {
                Some(suggestion) => format!("{}; {suggestion}", problem.message),
                None => problem.message,
            };
            error.at(problem.pointer, "invalid", text)
        })
    }

    /// The same error, saying where.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, code: impl Into<String>, detail: impl Into<String>) -> ApiError {
        self.0.errors.push(FieldError { pointer: pointer.into(), code: code.into(), detail: detail.into() });
        self
    }

    /// The same error, naming what was sent and not taken, as the answer that takes some of it does.
    #[must_use]
    pub fn rejected(mut self, rejected: Vec<serde_json::Value>) -> ApiError {
        self.0.rejected = rejected;
        self
    }

    /// The same error, saying when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> ApiError {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// The same error, after which the connection is closed.
    #[must_use]
    pub fn and_close(mut self) -> ApiError {
        self.0.close = true;
        self
    }

    /// The same error, naming the methods that are there.
    #[must_use]
    pub fn allow(mut self, methods: impl Into<String>) -> ApiError {
        self.0.allow = Some(methods.into());
        self
    }

    /// The same error with a cause that is logged and not returned.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> ApiError {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// Whether the connection is closed behind it.
    pub fn closes(&self) -> bool {
        self.0.close
    }

    /// What went wrong, for programs.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What to log: the cause if it is ours.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The answer, naming the request it answers.
    pub fn render(&self, request_id: &str) -> HttpResponse {
        let mut answer = HttpResponseBuilder::new(self.0.status);
        answer.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if let Some(seconds) = self.0.retry_after {
            answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(methods) = &self.0.allow {
            answer.insert_header((header::ALLOW, methods.as_str()));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.0.close {
            answer.force_close();
        }
        let body = ProblemBody {
            kind: format!("urn:opspilot:problem:{}", self.0.code),
            title: self.0.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.0.status.as_u16(),
            detail: self.0.detail.clone(),
            instance: format!("urn:opspilot:request:{request_id}"),
            code: self.0.code.to_owned(),
            errors: self.0.errors.clone(),
            rejected: self.0.rejected.clone(),
        };
        match serde_json::to_vec(&body) {
            Ok(bytes) => answer.body(bytes),
            Err(_) => answer.finish(),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.status.as_u16(), self.0.code)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        self.render("")
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> ApiError {
        let kind = error.kind();
        match kind {
            ErrorKind::Internal => ApiError::internal(error),
            ErrorKind::Busy => ApiError::new(kind, "busy", "the service has more to write than it can; try again shortly"),
            ErrorKind::Unavailable => {
                ApiError::new(kind, "storage-unavailable", "the storage does not take writes just now").retry_after(5).because(error)
            }
            ErrorKind::Conflict => ApiError::new(kind, "conflict", error.to_string()),
            ErrorKind::NotFound => ApiError::new(kind, "not_found", error.to_string()),
            ErrorKind::Malformed => ApiError::new(kind, "malformed", error.to_string()),
            ErrorKind::Unauthenticated => ApiError::new(kind, "unauthenticated", error.to_string()),
            ErrorKind::Forbidden => ApiError::new(kind, "forbidden", error.to_string()),
            ErrorKind::Expired => ApiError::new(kind, "expired", error.to_string()),
            ErrorKind::Invalid if matches!(error, LedgerError::Cursor) => ApiError::bad_cursor(),
            ErrorKind::Invalid => ApiError::new(kind, "invalid", error.to_string()),
        }
    }
}
