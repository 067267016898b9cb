//! Spans of time as people say them.

use std::time::Duration;

/// `45 s`, `4 min 10 s`, `26 h`, `3 d 4 h`: the two greatest units that are not zero, of which hours go up to 71.
pub(crate) fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    let pair = |great: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{great} {unit}"),
        _ => format!("{great} {unit} {small} {sub}"),
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..259_200 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_at_most_two_units() {
        for (seconds, expected) in [
            (1, "1 s"),
            (59, "59 s"),
            (60, "1 min"),
            (250, "4 min 10 s"),
            (3600, "1 h"),
            (3_601, "1 h"),
            (5_400, "1 h 30 min"),
            (93_600, "26 h"),
            (259_200, "3 d"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(spoken(Duration::from_millis(250)), "250 ms");
    }
}
