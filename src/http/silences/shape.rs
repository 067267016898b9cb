//! Silences as Alertmanager's API writes them.

use opspilot_kernel::{
    matcher::{Matcher, Operator},
    silence::{MAX_MATCHERS, SilenceState},
    time::Timestamp,
};
use opspilot_ledger::ListedSilence;
use serde::{Deserialize, Serialize};

use super::Silencing;
use crate::http::error::{ApiError, ApiResult};

/// One matcher.
///
/// It looks at a label of the alert; `alertname` and `name` (the rule), `source`, `severity`, `detected_by` and
/// `fingerprint` are there even if the alert has no such label.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MatcherBody {
    /// The label.
    name: String,
    /// What it is compared with.
    value: String,
    /// Whether the value is a regular expression, which must match the whole label.
    #[serde(default)]
    is_regex: bool,
    /// Whether it must match, or must not.
    #[serde(default = "yes")]
    is_equal: bool,
}

const fn yes() -> bool {
    true
}

impl From<&Matcher> for MatcherBody {
    fn from(matcher: &Matcher) -> MatcherBody {
        let (is_regex, is_equal) = match matcher.operator() {
            Operator::Equal => (false, true),
            Operator::NotEqual => (false, false),
            Operator::Like => (true, true),
            Operator::Unlike => (true, false),
        };
        MatcherBody { name: matcher.name().to_owned(), value: matcher.value().to_owned(), is_regex, is_equal }
    }
}

/// The matchers of a body.
pub(super) fn matchers(bodies: Vec<MatcherBody>) -> ApiResult<Vec<Matcher>> {
    let read = |(number, body): (usize, MatcherBody)| {
        let operator = match (body.is_regex, body.is_equal) {
            (false, true) => Operator::Equal,
            (false, false) => Operator::NotEqual,
            (true, true) => Operator::Like,
            (true, false) => Operator::Unlike,
        };
        let refused = |error: opspilot_kernel::matcher::MatcherError| {
            ApiError::invalid(format!("/matchers/{number}"), "bad_matcher", error.to_string())
        };
        Matcher::new(&body.name, operator, &body.value).map_err(refused)
    };
    // one more than there may be, so that too many are refused as such and no more are made ready
    bodies.into_iter().take(MAX_MATCHERS + 1).enumerate().map(read).collect()
}

/// Where a silence stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Status {
    /// `pending`, `active` or `expired`.
    #[schema(value_type = String)]
    state: SilenceState,
}

/// A silence.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    id: String,
    status: Status,
    matchers: Vec<MatcherBody>,
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Whom it is signed with.
    created_by: String,
    /// The account that set it.
    account: String,
    comment: String,
    /// How many alerts fire that it holds back.
    hides: u64,
    /// It ends soon, and still holds something back.
    ending: bool,
}

impl Silence {
    pub(super) fn of(listed: ListedSilence, silencing: &Silencing, now: Timestamp) -> Silence {
        let ListedSilence { silence, hides } = listed;
        Silence {
            ending: silencing.is_ending(&silence, hides, now),
            id: silence.id.to_string(),
            status: Status { state: silence.state(now) },
            matchers: silence.matchers.iter().map(MatcherBody::from).collect(),
            starts_at: silence.starts_at,
            ends_at: silence.ends_at,
            updated_at: silence.updated_at,
            created_by: silence.created_by,
            account: silence.account,
            comment: silence.comment,
            hides,
        }
    }
}
