//! `GET /api/signals`: search over what was taken in.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{
    ids::Seq,
    signal::{AlertState, Severity, SignalKind},
    time::Timestamp,
};
use opspilot_ledger::{SearchBudget, SignalFilter, StoredSignal};
use serde::{Deserialize, Serialize};

use super::{
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    idempotency::RESERVED_ID,
    lists::{Limit, part},
    state::AppState,
};

/// What to look for. Everything is optional; what is given must all hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalQuery {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    source: Option<String>,
    kind: Option<SignalKind>,
    q: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

/// A signal as it was taken in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SignalItem {
    /// Its number; later ones have greater numbers.
    #[schema(value_type = u64)]
    seq: Seq,
    /// The sender's identity of it; null if it gave none.
    id: Option<String>,
    /// `log`, `metric` or `alert`.
    #[schema(value_type = String)]
    kind: SignalKind,
    /// Who observed it.
    source: String,
    /// When it happened, by the sender's clock.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// How bad it is.
    #[schema(value_type = String)]
    severity: Severity,
    /// Logs: the line.
    message: Option<String>,
    /// Metrics and alerts: the name.
    name: Option<String>,
    /// Metrics: the value.
    value: Option<f64>,
    /// Names and values.
    labels: BTreeMap<String, String>,
    /// Metrics: the unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Alerts: `firing` or `resolved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    status: Option<AlertState>,
    /// Alerts: the sender's identity of the condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// Alerts: one line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Alerts: more for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl From<StoredSignal> for SignalItem {
    fn from(signal: StoredSignal) -> SignalItem {
        let given = |text: String| (!text.is_empty()).then_some(text);
        SignalItem {
            seq: signal.seq,
            id: given(signal.id).filter(|id| !id.starts_with(RESERVED_ID)),
            kind: signal.kind,
            source: signal.source,
            timestamp: signal.at,
            severity: signal.severity,
            message: given(signal.message),
            name: given(signal.name),
            value: signal.value,
            labels: signal.labels,
            unit: given(signal.unit),
            status: (signal.kind == SignalKind::Alert).then_some(signal.status),
            fingerprint: given(signal.fingerprint),
            title: given(signal.title),
            description: given(signal.description),
        }
    }
}

/// A part of the signals, ascending by number.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SignalPage {
    /// The signals.
    items: Vec<SignalItem>,
    /// Ask with `cursor=` this for what follows; null at the end. A page may be short, or empty, and still have one.
    next_cursor: Option<String>,
    /// The number of the last signal that was looked at.
    #[schema(value_type = u64)]
    scanned_until: Seq,
}

/// Searches the stored signals, oldest first.
///
/// `q` are words that must all occur in message, name, title, description or label values: `word`, `wor*`, `"two words"`.
#[utoipa::path(get, path = "/api/signals", tag = "signals",
    params(("since" = Option<String>, Query, description = "Event time not before (RFC 3339)"), ("until" = Option<String>, Query, description = "Event time before"),
        ("source" = Option<String>, Query, description = "The source, exactly"), ("kind" = Option<String>, Query, description = "log, metric or alert"),
        ("q" = Option<String>, Query, description = "Words"), ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "From the page before")),
    responses((status = 200, description = "Signals", body = SignalPage), (status = 422, description = "The query is not understood", body = ProblemBody)))]
pub async fn list(caller: Guard<Viewer>, query: Query<SignalQuery>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    drop(caller);
    let Query(SignalQuery { since, until, source, kind, q, limit, cursor }) = query;
    let filter = SignalFilter { since, until, source, kind, q, after_seq: 0 };
    let found = state.ledger.read(move |reader| reader.signals(&filter, &part(limit, cursor), &SearchBudget::default())).await?;
    Ok(HttpResponse::Ok().json(SignalPage {
        items: found.items.into_iter().map(SignalItem::from).collect(),
        next_cursor: found.next_cursor,
        scanned_until: found.scanned_until,
    }))
}
