//! Where a call goes: what a URL may say.

use std::net::IpAddr;

use reqwest::Url;

use super::{OutboundError, Refused, address::Reach};

/// Ports above 1023 that speak something else than HTTP, where a body could be taken for commands: the list that
/// browsers refuse (Fetch standard).
const OTHER_PROTOCOLS: [u16; 16] = [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6679, 10080];

/// Reads a URL and refuses what must not be called. Hosts that are addresses are checked here, in every spelling that
/// the parser takes for one; names are checked when they have been resolved.
pub(super) fn place(text: &str, reach: &Reach) -> Result<Url, OutboundError> {
    let url = Url::parse(text).map_err(|_| OutboundError::Url)?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(OutboundError::Refused(Refused::Scheme));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(OutboundError::Refused(Refused::Userinfo));
    }
    let port = url.port_or_known_default().unwrap_or(0);
    let is_open = matches!(port, 80 | 443) || (port >= 1024 && !OTHER_PROTOCOLS.contains(&port));
    if !is_open {
        return Err(OutboundError::Refused(Refused::Port));
    }
    match url.host_str() {
        None | Some("") => Err(OutboundError::Url),
        Some(host) => match literal(host) {
            Some(address) if !reach.holds(address) => Err(OutboundError::Refused(Refused::Address)),
            _ => Ok(url),
        },
    }
}

/// The address that a host, as the parser writes it, is.
fn literal(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_every_spelling_of_a_closed_address_is_refused() {
        let reach = Reach::default();
        for host in [
            "169.254.169.254",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "0.0.0.0",
            "0",
            "127。0。0。1",
            "１２７.0.0.1",
            "%31%32%37.0.0.1",
            "①27.0.0.1",
            "[fe80::1]",
        ] {
            let refused = place(&format!("http://{host}/x"), &reach).unwrap_err();
            assert!(matches!(refused, OutboundError::Refused(Refused::Address)), "{host}: {refused}");
        }
        for host in ["[fe80::%eth0]", "[fe80::1%25eth0]", "[::1", "256.256.256.256", "127.0.0.1:99999", "a b"] {
            assert!(matches!(place(&format!("http://{host}/x"), &reach), Err(OutboundError::Url)), "{host}");
        }
    }

    #[test]
    fn e1_userinfo_other_schemes_and_ports_of_other_protocols_are_refused() {
        let refused = |url: &str| match place(url, &Reach::default()) {
            Err(OutboundError::Refused(why)) => why,
            other => panic!("{url}: {other:?}"),
        };
        for url in ["https://ops@example.org/", "https://:x@example.org/", "https://example.org@127.0.0.1/"] {
            assert_eq!(refused(url), Refused::Userinfo, "{url}");
        }
        for url in ["ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "unix:/run/x"] {
            assert_eq!(refused(url), Refused::Scheme, "{url}");
        }
        for port in [0, 1, 21, 22, 25, 53, 110, 389, 445, 1023, 6000, 6667, 10080] {
            assert_eq!(refused(&format!("http://example.org:{port}/")), Refused::Port, "{port}");
        }
        for url in [
            "https://example.org/hook",
            "http://example.org:8080/",
            "https://8.8.8.8:8443/",
            "http://example.org:80",
            "https:\\\\example.org",
        ] {
            assert!(place(url, &Reach::default()).is_ok(), "{url}");
        }
    }
}
