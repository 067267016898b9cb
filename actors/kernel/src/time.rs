//! Points in time: UTC milliseconds, written as RFC 3339.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 timestamp between the years 1970 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATimestamp {
    /// It is no timestamp at all.
    #[error("not an RFC 3339 timestamp such as 2026-01-31T08:30:00.000Z")]
    Malformed,
    /// It is one, of a time that is not counted here.
    #[error("times before 1970 are not accepted")]
    TooEarly,
}

/// 9999-12-31T23:59:59.999Z, the last time that has a four-digit year.
const MAX_MILLIS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The earliest time there is here, 1970-01-01T00:00:00Z.
    pub const ZERO: Timestamp = Timestamp(0);

    /// The time `millis` after 1970, held within the years 1970 to 9999.
    pub const fn from_millis(millis: i64) -> Timestamp {
        if millis < 0 {
            Timestamp(0)
        } else if millis > MAX_MILLIS {
            Timestamp(MAX_MILLIS)
        } else {
            Timestamp(millis)
        }
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0 / 1000
    }

    /// This time and `span` more, at most the end of the year 9999.
    pub fn after(self, span: Duration) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_add(millis_of(span)))
    }

    /// This time less `span`, at least 1970.
    pub fn before(self, span: Duration) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_sub(millis_of(span)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Digits of `bytes[from..from + len]`, if they are all digits.
fn digits(bytes: &[u8], from: usize, len: usize) -> Option<i64> {
    bytes
        .get(from..from.checked_add(len)?)?
        .iter()
        .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// The common form `YYYY-MM-DDTHH:MM:SS[.fff]Z`, read without a general parser.
///
/// Days are counted by the algorithm `days_from_civil` of Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
fn parse_common(text: &[u8]) -> Option<Timestamp> {
    let millis = match text.len() {
        20 => 0,
        24 if text.get(19) == Some(&b'.') => digits(text, 20, 3)?,
        _ => return None,
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (text.len() - 1, b'Z')];
    if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
    let (hour, minute, second) = (digits(text, 11, 2)?, digits(text, 14, 2)?, digits(text, 17, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if year < 1970 || day < 1 || day > last_day || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    Some(Timestamp(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + millis))
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Timestamp, NotATimestamp> {
        if let Some(time) = parse_common(text.as_bytes()) {
            return Ok(time);
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATimestamp::Malformed)?;
        let millis = time.as_millisecond();
        match millis {
            ..0 => Err(NotATimestamp::TooEarly),
            0..=MAX_MILLIS => Ok(Timestamp(millis)),
            _ => Err(NotATimestamp::Malformed),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_forms_clients_send() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-22T12:00:00Z", 1_795_348_800_000),
            ("2026-11-22T12:00:00.250Z", 1_795_348_800_250),
            ("2026-11-22T12:00:00.250999Z", 1_795_348_800_250),
            ("2026-11-22T13:00:00+01:00", 1_795_348_800_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ] {
            assert_eq!(text.parse::<Timestamp>().map(Timestamp::millis), Ok(millis), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["", "yesterday", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATimestamp::Malformed), "{text}");
        }
        for text in ["1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:59:59+01:00", "0001-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATimestamp::TooEarly), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..=MAX_MILLIS) {
            let time = Timestamp::from_millis(millis);
            let text = time.to_string();
            prop_assert_eq!(text.len(), 24);
            prop_assert_eq!(text.parse(), Ok(time));
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_millisecond(), millis);
        }
    }
}
