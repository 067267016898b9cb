//! Signatures by the rules of [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body.
//!
//! The receiver takes the header `webhook-signature` apart at the spaces, computes `v1,` and the base64 of the HMAC of
//! `{webhook-id}.{webhook-timestamp}.{body}` (the bytes as they came), compares in constant time with each part, and
//! refuses a `webhook-timestamp` (seconds since 1970) that is more than five minutes off. What it has seen before it knows
//! by `webhook-id`.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use opspilot_kernel::config::Secret;
use sha2::Sha256;

/// The bytes that sign: the text as it is, or what stands behind `whsec_` in base64.
pub(super) fn key(secret: &Secret) -> Option<Vec<u8>> {
    match secret.expose().strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(secret.expose().as_bytes().to_vec()),
    }
}

/// The value of the header: one signature for each key.
pub(super) fn signature(keys: &[Vec<u8>], id: &str, seconds: i64, body: &[u8]) -> String {
    let signed = keys.iter().filter_map(|key| {
        // a key of any length is taken
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?;
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let keys = [key(&secret).unwrap()];
        let signed = signature(&keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
