//! One target: its deadline, its budget, its breaker.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use failsafe::{StateMachine, backoff, failure_policy};
use reqwest::{StatusCode, Url, header::RETRY_AFTER};
use tokio::time::Instant;

use super::{Outbound, OutboundError, Refused, Request, Response, TargetPolicy, budget, budget::Budget, place::place};

/// So many failures in a row, and it is left alone …
const FAILURES: u32 = 5;
/// … for about so long at first, and longer each time …
const ALONE: Duration = Duration::from_secs(5);
/// … up to this.
const ALONE_LONGEST: Duration = Duration::from_secs(60);

type Breaker = StateMachine<failure_policy::ConsecutiveFailures<backoff::EqualJittered>, ()>;

/// Something to call. Cheap to clone; every clone has the same budget and the same breaker.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

struct Inner {
    outbound: Outbound,
    name: String,
    policy: TargetPolicy,
    budget: Budget,
    breaker: Breaker,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.inner.name).field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}

impl Target {
    pub(super) fn new(outbound: Outbound, name: String, policy: TargetPolicy) -> Target {
        let failing = failure_policy::consecutive_failures(FAILURES, backoff::equal_jittered(ALONE, ALONE_LONGEST));
        let breaker = failsafe::Config::new().failure_policy(failing).build();
        Target { inner: Arc::new(Inner { outbound, name, policy, budget: Budget::default(), breaker }) }
    }

    /// Calls, and again if that is safe and there is reason to. Any answer is `Ok`, whatever its status.
    pub async fn send(&self, request: Request) -> Result<Response, OutboundError> {
        let inner = &*self.inner;
        let begun = Instant::now();
        let outcome = match place(&request.url, &inner.outbound.reach) {
            Ok(url) => inner.calls(&request, &url, begun + inner.policy.deadline).await,
            Err(refused) => Err(refused),
        };
        let seen = outcome.as_ref().map(|response| response.status.as_u16());
        inner.outbound.meters.ended(&inner.name, seen, begun.elapsed().as_secs_f64());
        outcome
    }
}

impl Inner {
    async fn calls(&self, request: &Request, url: &Url, deadline: Instant) -> Result<Response, OutboundError> {
        self.budget.earn();
        let mut repeats = 0;
        loop {
            if !self.breaker.is_call_permitted() {
                self.outbound.meters.breaker(&self.name, true);
                return Err(OutboundError::Open);
            }
            let outcome = match tokio::time::timeout_at(deadline, self.call(request, url)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(OutboundError::Timeout),
            };
            let (is_theirs, asked) = match &outcome {
                Ok(response) => (response.status.is_server_error(), pause(response)),
                Err(error) => (error.is_theirs(), None),
            };
            if is_theirs {
                self.breaker.on_error();
            } else if outcome.is_ok() {
                self.breaker.on_success();
                self.outbound.meters.breaker(&self.name, false);
            }
            let worth = is_theirs || asked.is_some();
            let wait = asked.unwrap_or_default().max(budget::wait(repeats));
            let in_time = Instant::now() + wait < deadline;
            if !(worth && request.repeatable && repeats < self.policy.retries && in_time && self.budget.spend()) {
                return outcome;
            }
            repeats += 1;
            self.outbound.meters.repeated(&self.name);
            tokio::time::sleep(wait).await;
        }
    }

    async fn call(&self, request: &Request, url: &Url) -> Result<Response, OutboundError> {
        let http = &self.outbound.http;
        let call = http.request(request.method.clone(), url.clone()).headers(request.headers.clone()).body(request.body.clone());
        let mut answer = call.send().await.map_err(|error| told(&error))?;
        let most = self.policy.max_body;
        if answer.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |length| length > most)) {
            return Err(OutboundError::TooLong);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| told(&error))? {
            if body.len().saturating_add(chunk.len()) > most {
                return Err(OutboundError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status: answer.status(), headers: std::mem::take(answer.headers_mut()), body: body.freeze() })
    }
}

/// How long the other side asks us to wait before we call again.
fn pause(response: &Response) -> Option<Duration> {
    if !matches!(response.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Some(Duration::from_secs(seconds.unwrap_or(0)))
}

/// What went wrong, without the URL that the error knows.
fn told(error: &reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return OutboundError::Refused(*refused);
        }
        cause = inner.source();
    }
    match error {
        _ if error.is_timeout() => OutboundError::Timeout,
        _ if error.is_connect() => OutboundError::Connect,
        _ => OutboundError::Broken,
    }
}
