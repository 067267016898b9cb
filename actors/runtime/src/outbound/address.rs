//! Which addresses an outgoing call may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use opspilot_kernel::net::Network;

/// What is not a public address of IPv4: special-purpose networks of the IANA registry, and addresses that clouds give
/// their metadata services among public ones.
const CLOSED_V4: [(Ipv4Addr, u32); 18] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What is not a public address of IPv6, within 2000::/3; everything outside of that is none.
const CLOSED_V6: [(Ipv6Addr, u32); 5] = [
    // protocol assignments, among them Teredo (2001::/32) and ORCHID
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: it carries an IPv4 address
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What outgoing calls may reach: public addresses, and what somebody admitted besides.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    admitted: Vec<Network>,
}

impl Reach {
    pub(super) fn and(admitted: Vec<Network>) -> Reach {
        Reach { admitted }
    }

    /// Whether a call may reach the address.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        match address {
            // nothing sensible is there, whoever admits it
            _ if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) => false,
            IpAddr::V4(_) => is_public(address) || self.is_admitted(address),
            IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), carried(v6)) {
                (Some(inner), _) => self.holds(IpAddr::V4(inner)),
                // the way and where it leads must both be open
                (None, Some(inner)) => self.is_admitted(address) && self.holds(IpAddr::V4(inner)),
                (None, None) => is_public(address) || self.is_admitted(address),
            },
        }
    }

    fn is_admitted(&self, address: IpAddr) -> bool {
        self.admitted.iter().any(|network| network.contains(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let among = |(network, bits): &(Ipv4Addr, u32)| (v4.to_bits() ^ network.to_bits()).leading_zeros() >= *bits;
            !CLOSED_V4.iter().any(among)
        }
        IpAddr::V6(v6) => {
            let among = |(network, bits): &(Ipv6Addr, u32)| (v6.to_bits() ^ network.to_bits()).leading_zeros() >= *bits;
            v6.to_bits() >> 125 == 1 && !CLOSED_V6.iter().any(among)
        }
    }
}

/// The IPv4 address that an address of a transition mechanism leads to: NAT64, 6to4, Teredo, IPv4-compatible.
fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = v6.to_bits();
    let low = |shift: u32| u32::try_from((bits >> shift) & u128::from(u32::MAX)).ok().map(Ipv4Addr::from_bits);
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0, 0, _, _] if v6 != Ipv6Addr::LOCALHOST => low(0),
        [0x2002, ..] => low(80),
        [0x2001, 0, ..] => low(0).map(|hidden| Ipv4Addr::from_bits(!hidden.to_bits())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(admitted: &[&str]) -> Reach {
        Reach::and(admitted.iter().map(|network| network.parse().unwrap()).collect())
    }

    #[test]
    fn e1_only_public_addresses_are_within_reach() {
        let closed = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.1.1.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in closed {
            assert!(!reach(&[]).holds(address.parse().unwrap()), "{address}");
        }
        for address in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.1.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(reach(&[]).holds(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn e1_what_is_admitted_is_within_reach_and_nothing_beside_it() {
        let reach = reach(&["10.0.0.0/8", "fd00::/8", "64:ff9b::/96", "0.0.0.0/32", "224.0.0.0/4"]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1"] {
            assert!(reach.holds(address.parse().unwrap()), "{address}");
        }
        // through an admitted NAT64 to what is not admitted, and what nobody can admit
        for address in ["127.0.0.1", "64:ff9b::169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "2002:a00:1::"] {
            assert!(!reach.holds(address.parse().unwrap()), "{address}");
        }
    }
}
