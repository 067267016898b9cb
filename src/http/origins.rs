//! Where a browser's page comes from: requests that carry a cookie must come from our own.

use actix_web::http::header::{self, HeaderMap};

use super::settings::Settings;

/// Whether the request's `Origin` is our own, or one that is allowed.
///
/// Our own is the scheme and host the request itself was sent to. Nothing is
/// compared by prefix or suffix, and `null` is never our own. Without an
/// `Origin` the answer is no: every browser sends one where it matters.
pub fn is_own(headers: &HeaderMap, settings: &Settings, tls: bool) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    is_own_of(headers, host, settings, tls)
}

/// [`is_own`] of a request that was sent to `host`, which with HTTP/2 stands in no header.
pub fn is_own_of(headers: &HeaderMap, host: Option<&str>, settings: &Settings, tls: bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN);
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let Ok(origin) = origin.to_str() else { return false };
    let scheme = if tls { "https" } else { "http" };
    let own = host.is_some_and(|host| origin.split_once("://").is_some_and(|(s, h)| s == scheme && h.eq_ignore_ascii_case(host)));
    own || settings.allowed_origins.iter().any(|allowed| allowed == origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t13_t14_only_our_own_origin_will_do() {
        let settings = Settings { allowed_origins: vec!["https://ops.example".to_owned()], ..Settings::default() };
        let own = |origin: &[&str], tls| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost:3000".parse().unwrap());
            for one in origin {
                headers.append(header::ORIGIN, one.parse().unwrap());
            }
            is_own(&headers, &settings, tls)
        };
        assert!(own(&["http://localhost:3000"], false));
        assert!(own(&["https://localhost:3000"], true));
        assert!(own(&["https://ops.example"], false));
        for foreign in [
            "null",
            "",
            "http://localhost:3001",
            "http://localhost",
            "https://localhost:3000",
            "http://localhost:3000.evil.example",
            "http://evil.example/localhost:3000",
            "http://evillocalhost:3000",
            "https://ops.example.evil",
            "https://sub.ops.example",
        ] {
            assert!(!own(&[foreign], false), "{foreign}");
        }
        assert!(!own(&[], false), "none at all");
        assert!(!own(&["http://localhost:3000", "http://evil"], false), "two");
    }
}
