//! `type: webhook`: a signed POST for each message.

use futures_util::future::BoxFuture;
use opspilot_kernel::{clock::SharedClock, config::Secret};
use opspilot_runtime::outbound::{HeaderMap, HeaderName, HeaderValue, OutboundError, Request, Target};

use super::{
    carry::{Carry, Message, NotCarried},
    sign,
};

pub(super) struct Webhook {
    pub(super) url: Secret,
    /// What signs: the secret, and the one before.
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) headers: HeaderMap,
    pub(super) target: Target,
    pub(super) clock: SharedClock,
}

/// A header as it is sent; its value is marked as not to be shown.
pub(super) fn header(name: &str, value: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(value.expose()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl Webhook {
    fn request(&self, message: &Message) -> Option<Request> {
        let body = message.body.to_string();
        let seconds = self.clock.now().seconds();
        let mut headers = self.headers.clone();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", HeaderValue::from_str(&message.dedup).ok()?);
        headers.insert("webhook-id", HeaderValue::from_str(&message.dedup).ok()?);
        headers.insert("webhook-timestamp", HeaderValue::from(seconds));
        if !self.keys.is_empty() {
            let signed = sign::signature(&self.keys, &message.dedup, seconds, body.as_bytes());
            headers.insert("webhook-signature", HeaderValue::from_str(&signed).ok()?);
        }
        let mut request = Request::post(self.url.expose(), body);
        request.headers = headers;
        Some(request)
    }
}

impl Carry for Webhook {
    fn carry(&self, message: Message) -> BoxFuture<'static, Result<(), NotCarried>> {
        let (request, target) = (self.request(&message), self.target.clone());
        Box::pin(async move {
            let Some(request) = request else { return Err(NotCarried::Failed("it cannot be put into a request".to_owned())) };
            match target.send(request).await {
                Ok(response) if response.status.is_success() => Ok(()),
                Ok(response) => Err(NotCarried::Failed(format!("it answered with status {}", response.status.as_u16()))),
                Err(error @ OutboundError::Open) => Err(NotCarried::LeftAlone(error.to_string())),
                Err(error) => Err(NotCarried::Failed(error.to_string())),
            }
        })
    }
}
