//! `incident_words`, `incident_text`: what incidents are found by.
//!
//! A text is taken apart here and nowhere else: into runs of letters, digits and `-._:/@=`, in lower case, and each run
//! again from behind every such sign on, so that `host=db-7` is found by `host`, `db-7` and `7`. An incident keeps each word
//! once, with a blank before and behind, and the index of words is given exactly these. So a further word costs what
//! it is long, whatever the incident holds already, and the words alone say whether one is there.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Text},
};
use opspilot_kernel::{
    alert::{Alert, Observation},
    incident::Incident,
};
use sha2::{Digest as _, Sha256};

use super::incidents_rows::{AlertRow, IncidentRow, parsed};
use crate::{
    error::LedgerError,
    schema::{alert, evidence, incident, incident_words},
};

/// What all words of one incident come to at most, in bytes; further ones are not found.
const MOST_BYTES: usize = 16 << 10;
/// The longest word, in characters; what is longer is found by its beginning.
const MOST_CHARS: usize = 64;
/// Signs that hold a word together, as `tokenchars` of the index has them.
const JOINS: [char; 7] = ['-', '.', '_', ':', '/', '@', '='];
/// How long a beginning must be to stand in the index of beginnings, the longest first; as `prefix` of the index has them.
const BEGINNINGS: [usize; 3] = [8, 4, 2];
/// Alerts of one incident whose texts are read when its words are made anew.
pub(super) const ALERTS: i64 = 500;
/// Incidents whose words are made in one transaction when a database is older than they are.
const CHUNK: i64 = 1000;

/// Runs of letters, digits and signs that hold them together, without such signs at their ends, in lower case.
fn runs(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && !JOINS.contains(&c))
        .map(|run| run.trim_matches(|c| JOINS.contains(&c)))
        .filter(|run| !run.is_empty())
        .map(|run| run.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric() || JOINS.contains(c)).collect())
}

/// The beginning of a word that is kept of it.
fn cut(word: &str) -> &str {
    let end = word.char_indices().nth(MOST_CHARS).map_or(word.len(), |(at, _)| at);
    word.get(..end).unwrap_or(word).trim_end_matches(|c| JOINS.contains(&c))
}

/// Every word of a text.
fn words_of(text: &str, into: &mut BTreeSet<String>) {
    for run in runs(text) {
        let mut joined = true;
        for (at, c) in run.char_indices() {
            let joins = JOINS.contains(&c);
            if joined
                && !joins
                && let Some(rest) = run.get(at..)
            {
                into.insert(cut(rest).to_owned());
            }
            joined = joins;
        }
    }
}

/// The words of a search, at most `most`; each may be cut short.
pub(super) fn wanted(text: &str, most: usize) -> BTreeSet<String> {
    runs(text).map(|run| cut(&run).to_owned()).take(most).collect()
}

/// One word that stands for an exact name and value: nobody writes one that begins with this sign.
pub(super) fn exactly(name: &str, value: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(name.as_bytes());
    digest.update([0]);
    digest.update(value.as_bytes());
    format!("={}", hex::encode(digest.finalize().get(..8).unwrap_or_default()))
}

/// What a source is exactly found by; no label has an empty name.
pub(super) fn exact_source(source: &str) -> String {
    exactly("", source)
}

/// What the index of words is asked for. It finds every incident that [`holds`](holding) all of them, and perhaps others.
pub(super) fn matching(begun: &BTreeSet<String>, exact: &[String]) -> String {
    let begun = begun.iter().map(|word| {
        let length = word.chars().count();
        let known = BEGINNINGS.into_iter().find(|known| *known <= length);
        match known.and_then(|known| word.char_indices().nth(known).map_or(Some(word.as_str()), |(end, _)| word.get(..end))) {
            Some(beginning) => format!("\"{beginning}\"*"),
            None => format!("\"{word}\""),
        }
    });
    begun.chain(exact.iter().map(|word| format!("\"{word}\""))).collect::<Vec<_>>().join(" ")
}

/// What stands in an incident's words if it has all of these. A single letter stands for itself.
pub(super) fn holding(begun: &BTreeSet<String>, exact: &[String]) -> Vec<String> {
    let begun = begun.iter().map(|word| if word.chars().nth(1).is_some() { format!(" {word}") } else { format!(" {word} ") });
    begun.chain(exact.iter().map(|word| format!(" {word} "))).collect()
}

/// The words of an incident's own texts. Nothing of them changes after it was opened.
pub(super) fn of_incident(incident: &Incident) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let texts = [incident.id.as_str(), &incident.title, &incident.description, &incident.source, &incident.rule, &incident.detected_by];
    texts.into_iter().for_each(|text| words_of(text, &mut words));
    words.insert(exact_source(&incident.source));
    for (name, value) in &incident.labels {
        words_of(name, &mut words);
        words_of(value, &mut words);
        words.insert(exactly(name, value));
    }
    words
}

/// The words of an alert that belongs to an incident.
pub(super) fn of_alert(alert: &Alert, into: &mut BTreeSet<String>) {
    for text in [alert.title.as_str(), &alert.description, &alert.source, &alert.name] {
        words_of(text, into);
    }
    for (name, value) in &alert.labels {
        words_of(name, into);
        words_of(value, into);
    }
}

/// The words of a piece of evidence.
pub(super) fn of_evidence(piece: &Observation, into: &mut BTreeSet<String>) {
    words_of(piece.source(), into);
    match piece {
        Observation::Log { text, .. } => words_of(text, into),
        Observation::Metric { name, .. } | Observation::Change { name, .. } => words_of(name, into),
    }
}

/// Gives incidents, by their numbers, further words; what they have already costs nothing.
pub(super) fn add(conn: &mut SqliteConnection, fresh: BTreeMap<i64, BTreeSet<String>>) -> Result<(), LedgerError> {
    use incident_words::dsl as t;
    // in the order of their numbers, in which the index takes them together
    for (num, fresh) in fresh {
        let known: Option<(bool, String)> = t::incident_words.find(num).select((t::full, t::words)).first(conn).optional()?;
        let (had, (full, known)) = (known.is_some(), known.unwrap_or_default());
        if full {
            continue;
        }
        let has: HashSet<&str> = known.split(' ').collect();
        let mut room = MOST_BYTES.saturating_sub(known.len());
        let (mut full, mut added) = (false, String::new());
        for word in fresh.iter().filter(|word| !has.contains(word.as_str())) {
            match room.checked_sub(word.len() + 1) {
                Some(left) => room = left,
                None => {
                    full = true;
                    break;
                }
            }
            added.push_str(word);
            added.push(' ');
        }
        if !had {
            let words = format!(" {added}");
            diesel::insert_into(t::incident_words).values((t::num.eq(num), t::full.eq(full), t::words.eq(words))).execute(conn)?;
        } else if full || !added.is_empty() {
            sql_query("UPDATE incident_words SET full = ?, words = words || ? WHERE num = ?")
                .bind::<Bool, _>(full)
                .bind::<Text, _>(&added)
                .bind::<BigInt, _>(num)
                .execute(conn)?;
        }
        if !added.is_empty() {
            sql_query("INSERT INTO incident_text (rowid, words) VALUES (?, ?)")
                .bind::<BigInt, _>(num)
                .bind::<Text, _>(&added)
                .execute(conn)?;
        }
    }
    Ok(())
}

/// Gives an incident the words of another, whose alerts it takes over.
pub(super) fn take_over(conn: &mut SqliteConnection, from: i64, into: i64) -> Result<(), LedgerError> {
    let words: Option<String> = incident_words::table.find(from).select(incident_words::words).first(conn).optional()?;
    let words = words.unwrap_or_default();
    // a label or a source is that of the incident it was written into
    let words = words.split(' ').filter(|word| !word.is_empty() && !word.starts_with('=')).map(str::to_owned).collect();
    add(conn, BTreeMap::from([(into, words)]))
}

/// Takes an incident out of the search.
pub(crate) fn forget(conn: &mut SqliteConnection, num: i64) -> Result<(), LedgerError> {
    sql_query("INSERT INTO incident_text (incident_text, rowid, words) SELECT 'delete', num, words FROM incident_words WHERE num = ?")
        .bind::<BigInt, _>(num)
        .execute(conn)?;
    diesel::delete(incident_words::table.find(num)).execute(conn)?;
    Ok(())
}

/// Makes the words of incidents that are older than the table of words, as often as it takes.
pub(crate) fn fill(conn: &mut SqliteConnection) -> Result<(), LedgerError> {
    loop {
        // every incident is stored with its words, so those without stand in front of none that has some
        let newest: Option<i64> = incident::table.select(diesel::dsl::max(incident::num)).first(conn)?;
        let done: Option<i64> = incident_words::table.select(diesel::dsl::max(incident_words::num)).first(conn)?;
        if newest.unwrap_or(0) <= done.unwrap_or(0) {
            return Ok(());
        }
        conn.transaction::<_, LedgerError, _>(|conn| {
            let rows: Vec<IncidentRow> = incident::table
                .filter(incident::num.gt(done.unwrap_or(0)))
                .order(incident::num)
                .limit(CHUNK)
                .select(IncidentRow::as_select())
                .load(conn)?;
            let mut fresh = BTreeMap::new();
            for row in rows {
                let num = row.num;
                let incident = row.state()?.incident;
                let mut words = of_incident(&incident);
                let query = alert::table.filter(alert::incident.eq(incident.id.as_str())).order(alert::num).limit(ALERTS);
                for row in query.select(AlertRow::as_select()).load::<AlertRow>(conn)? {
                    of_alert(&row.alert()?, &mut words);
                }
                for body in evidence::table.filter(evidence::incident.eq(num)).select(evidence::body).load::<String>(conn)? {
                    of_evidence(&parsed(&body)?, &mut words);
                }
                fresh.insert(num, words);
            }
            add(conn, fresh)
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let mut words = BTreeSet::new();
        words_of(text, &mut words);
        words.into_iter().collect()
    }

    #[test]
    fn a_text_is_taken_apart_into_words_that_are_found_from_each_of_their_parts_on() {
        assert_eq!(of("Payments FAIL (db-7.prod)!"), ["7.prod", "db-7.prod", "fail", "payments", "prod"]);
        assert_eq!(of("--host=\"Größe\" 10.0.0.7:5432/"), ["0.0.7:5432", "0.7:5432", "10.0.0.7:5432", "5432", "7:5432", "größe", "host"]);
        assert_eq!(of("\0\u{1b}[2J ''\"\" * ^ ( ) + - _"), ["2j"]);
        assert_eq!(of(&"x".repeat(1000)), ["x".repeat(64)]);
        assert_eq!(of(&"ü-".repeat(40)).first().map(|word| word.chars().count()), Some(1));
    }

    #[test]
    fn whatever_is_searched_for_becomes_words_that_the_index_takes() {
        let asked = |text: &str| matching(&wanted(text, 16), &[]);
        assert_eq!(asked("pay Payments db-7"), "\"db-7\"* \"pa\"* \"payments\"*");
        assert_eq!(asked("x paymentsystem"), "\"payments\"* \"x\"");
        assert_eq!(asked("\" OR NEAR( * ^ {a} : \0"), "\"a\" \"near\"* \"or\"*");
        assert_eq!(asked("( ) -- ::"), "");
        assert_eq!(wanted(&"word ".repeat(5000), 16).len(), 1);
        assert_eq!(wanted(&(0..5000).map(|n| format!("w{n} ")).collect::<String>(), 16).len(), 16);
        assert_eq!(holding(&wanted("a pay", 16), &["=00".to_owned()]), [" a ", " pay", " =00 "]);
        assert_ne!(exactly("a", "b"), exactly("ab", ""));
    }
}
