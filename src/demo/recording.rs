//! The recorded outage: when each line is due, and its times moved to now.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;

/// Written by `record.py`.
const OUTAGE: &str = include_str!("outage.ndjson");
/// Every line begins with this and a time of 24 characters.
const HEAD: &str = "{\"timestamp\":\"";
const STAMP: usize = 24;

/// From here on nothing works any more (the first line is a tenth of a second into its minute), …
pub(super) const BROKEN: Duration = Duration::from_millis(299_900);
/// … until here somebody mounts the archive volume again.
pub(super) const MOUNTED: Duration = Duration::from_millis(449_900);

/// A recording, ready to be played.
#[derive(Debug)]
pub(super) struct Recording {
    lines: Vec<Line>,
    /// From the first line to the last.
    pub(super) length: Duration,
}

#[derive(Debug)]
struct Line {
    /// Since the first line.
    offset: Duration,
    /// What stands behind the time.
    rest: &'static str,
}

/// The recording is not what `record.py` writes.
#[derive(Debug, thiserror::Error)]
#[error("line {0} of the recording is damaged")]
pub(super) struct Damaged(usize);

impl Recording {
    /// The outage of the shop.
    pub(super) fn outage() -> Result<Recording, Damaged> {
        let mut lines: Vec<Line> = Vec::new();
        let mut first = None;
        for (index, text) in OUTAGE.lines().enumerate() {
            let damaged = || Damaged(index + 1);
            let (stamp, rest) = text.strip_prefix(HEAD).and_then(|behind| behind.split_at_checked(STAMP)).ok_or_else(damaged)?;
            let at: Timestamp = stamp.parse().map_err(|_| damaged())?;
            let start = *first.get_or_insert(at);
            lines.push(Line { offset: at.since(start), rest });
        }
        let length = lines.last().map(|line| line.offset).unwrap_or_default();
        Ok(Recording { lines, length })
    }

    /// The number of the first line that is not before this.
    pub(super) fn line_at(&self, offset: Duration) -> usize {
        self.lines.partition_point(|line| line.offset < offset)
    }

    /// The lines from number `from` that are due by `played` into the recording, each with the time that `at` gives to
    /// its place; and the number of the first line that is not due yet.
    pub(super) fn due(&self, from: usize, played: Duration, at: impl Fn(Duration) -> Timestamp) -> (String, usize) {
        let mut text = String::new();
        let mut next = from;
        for line in self.lines.iter().skip(from).take_while(|line| line.offset < played) {
            text.push_str(&format!("{HEAD}{}{}\n", at(line.offset), line.rest));
            next += 1;
        }
        (text, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::*;

    fn all(end: Timestamp) -> Vec<Json> {
        let recording = Recording::outage().unwrap();
        let beyond = recording.length + Duration::from_millis(1);
        let (text, next) = recording.due(0, beyond, |offset| end.before(recording.length - offset));
        assert_eq!(next, recording.lines.len());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_recording_ends_now_in_order_and_lasts_ten_minutes() {
        let now: Timestamp = "2030-01-01T00:00:00.000Z".parse().unwrap();
        let at = |event: &Json| event["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap();
        let events = all(now);
        assert_eq!(at(events.last().unwrap()), now);
        assert!(events.windows(2).all(|pair| at(&pair[0]) <= at(&pair[1])));
        let length = now.since(at(&events[0])).as_secs();
        assert!((590..=600).contains(&length), "{length}");
    }

    #[test]
    fn the_recording_holds_a_cause_its_effects_and_a_red_herring() {
        let events = all(Timestamp::from_millis(1_900_000_000_000));
        let sources: BTreeSet<&str> = events.iter().filter_map(|event| event["source"].as_str()).collect();
        assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["checkout", "db", "gateway", "inventory", "payments"]);
        let place =
            |needle: &str| events.iter().position(|event| event["message"].as_str().is_some_and(|text| text.contains(needle))).unwrap();
        let (herring, cause, effect) = (place("deploy: version"), place("No space left on device"), place("payment failed for order"));
        assert!(herring < cause && cause < effect + 20);
        assert!(events.iter().filter(|event| event.get("value").is_some()).count() > 300);
    }

    #[test]
    fn playing_in_pieces_gives_the_same_lines() {
        let recording = Recording::outage().unwrap();
        let begin = Timestamp::from_millis(1_900_000_000_000);
        let at = |offset| begin.after(offset);
        let (mut text, mut next, mut played) = (String::new(), 0, Duration::ZERO);
        while next < recording.lines.len() {
            let (more, then) = recording.due(next, played, at);
            text.push_str(&more);
            (next, played) = (then, played + Duration::from_millis(700));
        }
        assert_eq!(text, recording.due(0, recording.length + Duration::from_secs(1), at).0);
    }

    #[test]
    fn the_outage_lasts_until_the_volume_is_mounted() {
        let recording = Recording::outage().unwrap();
        let rest = |number: usize| recording.lines.get(number).unwrap().rest;
        assert!(
            rest(recording.line_at(BROKEN)).contains("No space left on device")
                || rest(recording.line_at(BROKEN) + 1).contains("No space left")
        );
        let mounted = recording.line_at(MOUNTED);
        assert!((0..3).any(|more| rest(mounted + more).contains("archive volume is mounted again")));
        let fails = |number: usize| rest(number).contains("payment failed for order");
        assert!((recording.line_at(BROKEN)..mounted).filter(|number| fails(*number)).count() > 50);
        assert!(!(0..recording.line_at(BROKEN)).any(fails));
    }
}
