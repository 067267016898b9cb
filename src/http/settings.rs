//! How the HTTP server behaves; every bound is here.

use std::{net::IpAddr, str::FromStr, time::Duration};

use opspilot_kernel::principal::Role;

/// A network address with a prefix length, such as `10.0.0.0/8` or `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network; write an address or a prefix, such as 10.0.0.0/8 or ::1")]
pub struct NotANetwork;

/// The address as a number, and how many bits it has; IPv4 within IPv6 counts as IPv4.
fn bits(address: IpAddr) -> (u128, u32) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        let shift = width.saturating_sub(self.prefix);
        width == other_width && own.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;
    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim().parse().map_err(|_| NotANetwork)?;
        let (_, width) = bits(address);
        let prefix = match prefix {
            None => width,
            Some(text) => text.trim().parse().map_err(|_| NotANetwork)?,
        };
        if prefix > width { Err(NotANetwork) } else { Ok(Network { address: address.to_canonical(), prefix }) }
    }
}

/// How many requests a minute a client may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads, for each principal (or address).
    pub reads: u32,
    /// Writes, for each principal (or address).
    pub writes: u32,
    /// Log-ins, for each address.
    pub logins: u32,
    /// Other numbers for a role: reads and writes.
    pub roles: Vec<(Role, u32, u32)>,
    /// How many clients are remembered; the one that was idle longest makes room for a new one.
    pub clients: usize,
}

impl Default for RateLimits {
    fn default() -> RateLimits {
        RateLimits { reads: 6_000, writes: 3_000, logins: 30, roles: Vec::new(), clients: 50_000 }
    }
}

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Origins besides the server's own that a browser may come from.
    pub allowed_origins: Vec<String>,
    /// Whether TLS ends here.
    pub tls: bool,
    /// Whether the server listens beyond loopback without TLS or a trusted proxy, because it was told to.
    pub insecure: bool,
    /// How many requests a minute a client may make.
    pub rate_limits: RateLimits,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections that a worker holds; further ones wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send the head of a request.
    pub head_timeout: Duration,
    /// How long a client may take to send the body of a request.
    pub body_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// How long requests under way may take when the server stops.
    pub stop_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            trusted_proxies: Vec::new(),
            allowed_origins: Vec::new(),
            tls: false,
            insecure: false,
            rate_limits: RateLimits::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 1024,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_they_should() {
        let holds = |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.200.3.4"));
        assert!(holds("10.0.0.0/8", "::ffff:10.200.3.4"));
        assert!(holds("127.0.0.1", "127.0.0.1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2"));
        assert!(!holds("0.0.0.0/0", "::1"));
        for wrong in ["", "10.0.0.0/33", "host", "10.0.0.0/x", "::/129"] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork), "{wrong}");
        }
    }
}
