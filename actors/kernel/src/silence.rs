//! Silences: while one is active, the alerts that match it are kept and told to nobody.
//!
//! States, updates and expiry are as Alertmanager documents them: a change that would rewrite what was silenced ends the
//! old silence and begins a new one.

use std::time::Duration;

use serde::Serialize;

use crate::{facets::Facets, ids::SilenceId, matcher::Matcher, time::Timestamp};

/// How many matchers a silence may have.
pub const MAX_MATCHERS: usize = 32;
/// The longest value or expression of a matcher, in bytes.
pub const MAX_VALUE: usize = 1024;
/// The longest comment, in characters.
pub const MAX_COMMENT: usize = 4096;
/// The longest name that a silence may be signed with, in characters.
pub const MAX_AUTHOR: usize = 128;

/// A silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Its id.
    pub id: SilenceId,
    /// Which alerts it is about: those for which all of them hold.
    pub matchers: Vec<Matcher>,
    /// From when on.
    pub starts_at: Timestamp,
    /// Until when; from then on it is over.
    pub ends_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Whom it is signed with.
    pub created_by: String,
    /// The account that set it.
    pub account: String,
    /// Why.
    pub comment: String,
}

/// Where a silence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SilenceState {
    /// It has not begun.
    Pending,
    /// It holds.
    Active,
    /// It is over.
    Expired,
}

impl SilenceState {
    /// The state as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SilenceState::Pending => "pending",
            SilenceState::Active => "active",
            SilenceState::Expired => "expired",
        }
    }
}

impl Silence {
    /// Where it stands at `at`.
    pub fn state(&self, at: Timestamp) -> SilenceState {
        if at >= self.ends_at {
            SilenceState::Expired
        } else if at < self.starts_at {
            SilenceState::Pending
        } else {
            SilenceState::Active
        }
    }

    /// Whether it hides this alert at `at`.
    pub fn hides(&self, alert: Facets<'_>, at: Timestamp) -> bool {
        self.state(at) == SilenceState::Active && alert.match_all(&self.matchers)
    }
}

/// A silence as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The silence it changes; none for a new one.
    pub id: Option<SilenceId>,
    /// Which alerts it is about.
    pub matchers: Vec<Matcher>,
    /// From when on; what is past or missing is now.
    pub starts_at: Option<Timestamp>,
    /// Until when.
    pub ends_at: Timestamp,
    /// Whom it is signed with.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// Why a silence is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// There is none.
    #[error("a silence needs at least one matcher")]
    NoMatcher,
    /// There are too many.
    #[error("a silence has at most {MAX_MATCHERS} matchers")]
    ManyMatchers,
    /// One compares with too much.
    #[error("the value of a matcher has at most {MAX_VALUE} bytes")]
    LongValue,
    /// It would hide every alert.
    #[error("every matcher also holds for a label that is not there, so this would hide everything; at least one must ask for a value")]
    MatchesEverything,
    /// It ends before it begins, or has ended already.
    #[error("a silence ends after it begins, and in the future")]
    Ends,
    /// It would last too long for whoever wants it.
    #[error("this silence would last {}, and the longest allowed to this role is {}; end it earlier and prolong it when it is needed", words(*wanted), words(*longest))]
    TooLong {
        /// How long it would last.
        wanted: Duration,
        /// How long it may.
        longest: Duration,
    },
    /// Nobody would know why.
    #[error("a silence needs a comment that says why, of at most {MAX_COMMENT} characters")]
    Comment,
    /// The name is none.
    #[error("a silence is signed with a name of 1 to {MAX_AUTHOR} characters")]
    Author,
}

impl Unacceptable {
    /// The field that it is about, as the API names it.
    pub const fn field(&self) -> &'static str {
        match self {
            Unacceptable::NoMatcher | Unacceptable::ManyMatchers | Unacceptable::LongValue | Unacceptable::MatchesEverything => "matchers",
            Unacceptable::Ends | Unacceptable::TooLong { .. } => "endsAt",
            Unacceptable::Comment => "comment",
            Unacceptable::Author => "createdBy",
        }
    }

    /// What is wrong, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Unacceptable::NoMatcher => "no_matcher",
            Unacceptable::ManyMatchers | Unacceptable::LongValue => "too_large",
            Unacceptable::MatchesEverything => "matches_everything",
            Unacceptable::Ends => "bad_end",
            Unacceptable::TooLong { .. } => "too_long",
            Unacceptable::Comment => "bad_comment",
            Unacceptable::Author => "bad_name",
        }
    }
}

/// The two largest units of a span: `7d`, `1d 2h`, `59m 58s`.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let largest = units.into_iter().skip_while(|(count, _)| *count == 0).take(2).filter(|(count, _)| *count > 0);
    largest.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// Whether these matchers can be those of a silence. One at least must not hold for the empty value, that is for a label that
/// is not there.
pub fn acceptable(matchers: &[Matcher]) -> Result<(), Unacceptable> {
    match matchers.len() {
        0 => return Err(Unacceptable::NoMatcher),
        1..=MAX_MATCHERS => {}
        _ => return Err(Unacceptable::ManyMatchers),
    }
    if matchers.iter().any(|matcher| matcher.value().len() > MAX_VALUE) {
        return Err(Unacceptable::LongValue);
    }
    if matchers.iter().all(|matcher| matcher.holds("")) {
        return Err(Unacceptable::MatchesEverything);
    }
    Ok(())
}

impl Draft {
    /// Whether it can be taken at `now` from somebody who may silence for `longest`, counted from now or from its later begin.
    pub fn check(&self, now: Timestamp, longest: Duration) -> Result<(), Unacceptable> {
        acceptable(&self.matchers)?;
        let starts_at = self.starts_at.unwrap_or(now).max(now);
        if self.ends_at <= starts_at || self.starts_at.is_some_and(|starts_at| self.ends_at <= starts_at) {
            return Err(Unacceptable::Ends);
        }
        let wanted = self.ends_at.since(starts_at);
        if wanted > longest {
            return Err(Unacceptable::TooLong { wanted, longest });
        }
        if self.comment.trim().is_empty() || self.comment.chars().count() > MAX_COMMENT {
            return Err(Unacceptable::Comment);
        }
        let name = self.created_by.trim();
        if name.is_empty() || name.chars().count() > MAX_AUTHOR || name.chars().any(char::is_control) {
            return Err(Unacceptable::Author);
        }
        Ok(())
    }

    /// Whether `old` can become this without another account of what was silenced: the same matchers, and only times that are
    /// still ahead move. (Alertmanager, "silences": to the second, as it compares the beginning of an active one.)
    pub fn fits_in_place_of(&self, old: &Silence, now: Timestamp) -> bool {
        if self.matchers != old.matchers {
            return false;
        }
        let starts_at = self.starts_at.unwrap_or(now);
        match old.state(now) {
            SilenceState::Active => starts_at.seconds() == old.starts_at.seconds() && self.ends_at >= now,
            SilenceState::Pending => starts_at >= now,
            SilenceState::Expired => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + second * 1000)
    }

    fn matchers(texts: &[&str]) -> Vec<Matcher> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn silence(from: i64, to: i64) -> Silence {
        Silence {
            id: SilenceId::given("sil_1"),
            matchers: matchers(&["host=h1"]),
            starts_at: at(from),
            ends_at: at(to),
            updated_at: at(0),
            created_by: "ada".to_owned(),
            account: "ada".to_owned(),
            comment: "disk is being replaced".to_owned(),
        }
    }

    fn draft(from: Option<i64>, to: i64) -> Draft {
        Draft {
            id: None,
            matchers: matchers(&["host=h1"]),
            starts_at: from.map(at),
            ends_at: at(to),
            created_by: "ada".to_owned(),
            comment: "disk is being replaced".to_owned(),
        }
    }

    #[test]
    fn the_state_follows_from_the_time() {
        let silence = silence(10, 20);
        for (second, state) in
            [(9, SilenceState::Pending), (10, SilenceState::Active), (19, SilenceState::Active), (20, SilenceState::Expired)]
        {
            assert_eq!(silence.state(at(second)), state, "{second}");
        }
        let never = Silence { ends_at: at(10), ..silence };
        assert_eq!(never.state(at(10)), SilenceState::Expired, "a pending one that was expired begins and ends at once");
    }

    #[test]
    fn alertmanagers_rules_for_an_update_in_place() {
        let (active, pending, over) = (silence(0, 1000), silence(500, 1000), silence(0, 50));
        let now = at(100);
        let changed = |matchers_: &[&str], draft: Draft| Draft { matchers: matchers(matchers_), ..draft };
        let table = [
            ("an active one is prolonged", &active, draft(Some(0), 2000), true),
            ("an active one is cut short", &active, draft(Some(0), 101), true),
            ("an active one ends just now", &active, draft(Some(0), 100), true),
            ("an active one cannot have ended", &active, draft(Some(0), 99), false),
            ("an active one cannot begin at another time", &active, draft(Some(1), 2000), false),
            ("an active one cannot begin now", &active, draft(None, 2000), false),
            ("a pending one is moved", &pending, draft(Some(200), 300), true),
            ("a pending one begins now", &pending, draft(None, 300), true),
            ("a pending one cannot have begun", &pending, draft(Some(99), 300), false),
            ("an expired one stays as it is", &over, draft(Some(0), 2000), false),
            ("other matchers are another silence", &active, changed(&["host=h2"], draft(Some(0), 2000)), false),
            ("fewer matchers are another silence", &active, changed(&["host=h1", "a=b"], draft(Some(0), 2000)), false),
            ("another operator is another silence", &active, changed(&["host=~h1"], draft(Some(0), 2000)), false),
        ];
        for (what, old, draft, in_place) in table {
            assert_eq!(draft.fits_in_place_of(old, now), in_place, "{what}");
        }
    }

    #[test]
    fn what_is_not_taken_says_why() {
        let day = Duration::from_secs(86_400);
        let now = at(100);
        assert_eq!(draft(None, 200).check(now, day), Ok(()));
        assert_eq!(draft(Some(0), 200).check(now, day), Ok(()), "what began in the past begins now");
        assert_eq!(draft(Some(200), 200 + 86_400).check(now, day), Ok(()), "the span is counted from its beginning");
        let refused = |draft: Draft| draft.check(now, day).unwrap_err();
        assert_eq!(refused(draft(None, 100)), Unacceptable::Ends);
        assert_eq!(refused(draft(Some(300), 200)), Unacceptable::Ends);
        let long = refused(draft(None, 100 + 90_000));
        assert_eq!((long.field(), long.code()), ("endsAt", "too_long"));
        assert!(long.to_string().starts_with("this silence would last 1d 1h, and the longest allowed to this role is 1d;"), "{long}");
        for (matchers_, reason) in [
            (&[][..], Unacceptable::NoMatcher),
            (&["a=\"\""][..], Unacceptable::MatchesEverything),
            (&["a=~\".*\"", "b!=x"][..], Unacceptable::MatchesEverything),
            (&["a!~\".+\""][..], Unacceptable::MatchesEverything),
        ] {
            assert_eq!(refused(Draft { matchers: matchers(matchers_), ..draft(None, 200) }), reason, "{matchers_:?}");
        }
        assert_eq!(Draft { matchers: matchers(&["a=~\".*\"", "b=~\".+\""]), ..draft(None, 200) }.check(now, day), Ok(()));
        assert_eq!(refused(Draft { comment: "  ".to_owned(), ..draft(None, 200) }), Unacceptable::Comment);
        assert_eq!(refused(Draft { created_by: String::new(), ..draft(None, 200) }), Unacceptable::Author);
        assert_eq!(refused(Draft { matchers: vec!["a=b".parse().unwrap(); 33], ..draft(None, 200) }), Unacceptable::ManyMatchers);
    }
}
