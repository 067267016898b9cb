//! Finding incidents by words, labels and where they stand, at a cost that has a bound.
//!
//! Whatever is asked for, one page looks into the words of [`SCAN`] incidents at most. There are two ways: with filters that
//! the index of words knows nothing of, the list is walked in its own order, and each stretch of it is compared with what
//! the index finds there; without, what the index finds is taken as it comes, the newest first. Where that ends before the
//! page is full it says where it stopped, and the next page goes on there.

use std::collections::{HashMap, HashSet};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};

use super::{
    incidents_list::{IncidentFilter, behind, filtered, listed, one_more},
    incidents_rows::{IncidentRow, json},
    incidents_words::{exact_source, exactly, holding, matching, wanted},
};
use crate::{
    error::LedgerError,
    read::{Listed, Page},
    schema::incident,
};

/// Words of one search; further ones are not looked for.
const WORDS: usize = 16;
/// Incidents whose words and rows one page of a search looks at.
const SCAN: i64 = 10_000;
/// What the index finds is few if it is no more than this: then it is filtered and sorted.
const FEW: i64 = 2000;
/// The longest stretch of the list that is walked at once.
const LONGEST: i64 = 16_000;
/// The index of words is asked about a stretch of numbers only if at least one in so many of them passes the filters.
const SPARSE: i64 = 8;

#[derive(QueryableByName)]
struct NumRow {
    #[diesel(sql_type = BigInt)]
    num: i64,
}

/// What is looked for besides filters.
pub(super) struct Sought {
    matching: String,
    /// As JSON, what must stand in the words.
    holding: String,
}

impl Sought {
    /// None if nothing is looked for: then filters alone decide, and the list is walked in its own order.
    pub(super) fn of(filter: &IncidentFilter) -> Result<Option<Sought>, LedgerError> {
        let begun = wanted(filter.q.as_deref().unwrap_or_default(), WORDS);
        if begun.is_empty() && filter.labels.is_empty() {
            return Ok(None);
        }
        let labels = filter.labels.iter().map(|(name, value)| exactly(name, value));
        let exact: Vec<String> = labels.chain(filter.source.as_deref().map(exact_source)).collect();
        Ok(Some(Sought { matching: matching(&begun, &exact), holding: json(&holding(&begun, &exact))? }))
    }
}

/// Incidents that hold what is sought.
pub(super) fn search(
    conn: &mut SqliteConnection,
    filter: &IncidentFilter,
    sought: &Sought,
    page: &Page,
) -> Result<Listed<IncidentRow>, LedgerError> {
    if filter.narrows() { walk(conn, filter, sought, page) } else { look_up(conn, filter, sought, page) }
}

/// Walks the list of those that pass the filters, in its own order, and keeps those that hold what is sought.
fn walk(conn: &mut SqliteConnection, filter: &IncidentFilter, sought: &Sought, page: &Page) -> Result<Listed<IncidentRow>, LedgerError> {
    let found: Vec<NumRow> = sql_query("SELECT rowid AS num FROM incident_text WHERE incident_text MATCH ? LIMIT ?")
        .bind::<Text, _>(&sought.matching)
        .bind::<BigInt, _>(FEW + 1)
        .load(conn)?;
    let cursor = |row: &IncidentRow| format!("{}.{}", row.opened_at, row.num);
    if i64::try_from(found.len()).unwrap_or(i64::MAX) <= FEW {
        let held = among(conn, &found.into_iter().map(|row| row.num).collect::<Vec<_>>(), sought)?;
        let is_held = diesel::dsl::sql::<diesel::sql_types::Bool>("incident.num IN (SELECT value FROM json_each(")
            .bind::<Text, _>(json(&held)?)
            .sql("))");
        // sorted by what no index has: or SQLite would walk the whole list in search of these few
        let order = diesel::dsl::sql::<BigInt>("+incident.opened_at DESC, incident.num DESC");
        let rows = behind(filter, page)?.select(IncidentRow::as_select()).filter(is_held).order(order).limit(one_more(page));
        return listed(rows.load(conn)?, page, cursor, Ok);
    }
    let (mut rows, mut at, mut cost, mut ended, mut step) = (Vec::new(), page.cursor.clone(), 0, false, 1000);
    while rows.len() <= page.limit && cost < SCAN && !ended {
        let part = Page { limit: page.limit, cursor: at.clone() };
        let passing: Vec<(i64, i64)> = behind(filter, &part)?.select((incident::opened_at, incident::num)).limit(step).load(conn)?;
        let count = i64::try_from(passing.len()).unwrap_or(i64::MAX);
        ended = count < step;
        at = passing.last().map(|(opened_at, num)| format!("{opened_at}.{num}")).or(at);
        let nums: Vec<i64> = passing.into_iter().map(|(_, num)| num).collect();
        let likely = likely(conn, &nums, sought)?;
        // to walk costs little; to look into words and rows costs ten times as much
        cost = cost.saturating_add(count / 10).saturating_add(i64::try_from(likely.len()).unwrap_or(i64::MAX));
        step = step.saturating_mul(4).min(LONGEST);
        let mut held = among(conn, &likely, sought)?;
        let order: HashMap<i64, usize> = nums.into_iter().zip(0..).collect();
        held.sort_by_key(|num| order.get(num).copied());
        held.truncate(page.limit.saturating_add(1).saturating_sub(rows.len()));
        let mut found = wide(conn, filter, &held, page)?;
        found.sort_by_key(|row: &IncidentRow| order.get(&row.num).copied());
        rows.extend(found);
    }
    let mut answer = listed(rows, page, cursor, Ok)?;
    if !ended {
        answer.next_cursor = answer.next_cursor.or(at);
    }
    Ok(answer)
}

/// Those of `nums` that the index of words finds, unless to look at each of them costs less than to ask it.
fn likely(conn: &mut SqliteConnection, nums: &[i64], sought: &Sought) -> Result<Vec<i64>, LedgerError> {
    let (least, most) = (nums.iter().min().copied().unwrap_or(0), nums.iter().max().copied().unwrap_or(0));
    let count = i64::try_from(nums.len()).unwrap_or(i64::MAX);
    if most.saturating_sub(least) > count.saturating_mul(SPARSE) {
        return Ok(nums.to_vec());
    }
    let found: Vec<NumRow> = sql_query("SELECT rowid AS num FROM incident_text WHERE incident_text MATCH ? AND rowid BETWEEN ? AND ?")
        .bind::<Text, _>(&sought.matching)
        .bind::<BigInt, _>(least)
        .bind::<BigInt, _>(most)
        .load(conn)?;
    let found: HashSet<i64> = found.into_iter().map(|row| row.num).collect();
    Ok(nums.iter().copied().filter(|num| found.contains(num)).collect())
}

/// Asks the index of words, for the newest first, in the order in which they were opened.
fn look_up(conn: &mut SqliteConnection, filter: &IncidentFilter, sought: &Sought, page: &Page) -> Result<Listed<IncidentRow>, LedgerError> {
    let before = match &page.cursor {
        Some(cursor) => cursor.strip_prefix('n').and_then(|num| num.parse().ok()).ok_or(LedgerError::Cursor)?,
        None => i64::MAX,
    };
    let (mut rows, mut from, mut seen, mut ended) = (Vec::new(), before, 0, false);
    // nearly always the first few are enough
    let mut step = one_more(page).max(64);
    while rows.len() <= page.limit && seen < SCAN && !ended {
        let wanted = step.min(SCAN - seen);
        let found: Vec<NumRow> =
            sql_query("SELECT rowid AS num FROM incident_text WHERE incident_text MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?")
                .bind::<Text, _>(&sought.matching)
                .bind::<BigInt, _>(from)
                .bind::<BigInt, _>(wanted)
                .load(conn)?;
        let found: Vec<i64> = found.into_iter().map(|row| row.num).collect();
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        (ended, seen, step) = (count < wanted, seen.saturating_add(count), step.saturating_mul(4));
        from = found.last().copied().unwrap_or(from);
        let held = among(conn, &found, sought)?;
        rows.extend(wide(conn, filter, &held, page)?);
    }
    let mut answer = listed(rows, page, cursor, Ok)?;
    if !ended {
        answer.next_cursor = answer.next_cursor.or_else(|| Some(format!("n{from}")));
    }
    Ok(answer)
}

fn cursor(row: &IncidentRow) -> String {
    format!("n{}", row.num)
}

/// Those of `nums` whose words hold all that is sought.
fn among(conn: &mut SqliteConnection, nums: &[i64], sought: &Sought) -> Result<Vec<i64>, LedgerError> {
    let rows: Vec<NumRow> = sql_query(
        "SELECT w.num FROM json_each(?) c CROSS JOIN incident_words w \
         WHERE w.num = c.value AND NOT EXISTS (SELECT 1 FROM json_each(?) s WHERE instr(w.words, s.value) = 0)",
    )
    .bind::<Text, _>(json(nums)?)
    .bind::<Text, _>(&sought.holding)
    .load(conn)?;
    Ok(rows.into_iter().map(|row| row.num).collect())
}

/// Those of `nums` that pass the filters, newest first, one more than the page holds at most.
fn wide(conn: &mut SqliteConnection, filter: &IncidentFilter, nums: &[i64], page: &Page) -> Result<Vec<IncidentRow>, LedgerError> {
    if nums.is_empty() {
        return Ok(Vec::new());
    }
    let among =
        diesel::dsl::sql::<diesel::sql_types::Bool>("incident.num IN (SELECT value FROM json_each(").bind::<Text, _>(json(nums)?).sql("))");
    // sorted by what no index has: or SQLite would walk a whole list in search of these few
    let order = diesel::dsl::sql::<BigInt>("+incident.num DESC");
    Ok(filtered(filter).select(IncidentRow::as_select()).filter(among).order(order).limit(one_more(page)).load(conn)?)
}
