//! Alert fingerprints, as Prometheus and Alertmanager compute them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Identifies an alert by its labels: FNV-1a, 64 bits, written as 16 hex digits.
///
/// Source: `prometheus/common`, `model/signature.go` (`labelSetToFingerprint`): labels sorted by
/// name, each as `name 0xFF value 0xFF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;
const SEPARATOR: u8 = 0xff;

impl Fingerprint {
    /// The fingerprint of a label set.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Fingerprint {
        Fingerprint::of_pairs(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The fingerprint of pairs that are already sorted by name.
    pub fn of_pairs<'a>(sorted: impl IntoIterator<Item = (&'a str, &'a str)>) -> Fingerprint {
        let mut sum = OFFSET;
        for (name, value) in sorted {
            sum = separate(add(separate(add(sum, name)), value));
        }
        Fingerprint(sum)
    }

    /// The fingerprint with this number.
    pub const fn from_u64(number: u64) -> Fingerprint {
        Fingerprint(number)
    }

    /// The number behind the digits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

fn add(sum: u64, text: &str) -> u64 {
    text.bytes().fold(sum, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn separate(sum: u64) -> u64 {
    (sum ^ u64::from(SEPARATOR)).wrapping_mul(PRIME)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Fingerprint, Self::Err> {
        u64::from_str_radix(text, 16).map(Fingerprint)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_alertmanager_on_published_samples() {
        let sample = |instance: &str| {
            Fingerprint::of_labels(&BTreeMap::from(
                [
                    ("alertname", "InstanceDown"),
                    ("code", "200"),
                    ("instance", instance),
                    ("job", "prometheus"),
                    ("monitor", "codelab-monitor"),
                    ("severity", "critical"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ))
        };
        assert_eq!(sample("127.0.0.1:9090").to_string(), "791cec13fcba0368");
        assert_eq!(sample("localhost:9090").to_string(), "8df98227bdd81384");
        assert_eq!(Fingerprint::of_pairs([("alertname", "Foo")]).to_string(), "f036cc237081686a");
        assert_eq!(Fingerprint::of_pairs([]).to_string(), "cbf29ce484222325");
    }
}
