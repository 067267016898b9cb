//! How many incidents there were, and how long people took: computed from the incidents themselves.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use diesel::prelude::*;
use opspilot_kernel::{signal::Severity, time::Timestamp};
use serde::Serialize;

use super::{
    incidents_course::Course,
    incidents_list::{IncidentFilter, filtered},
    incidents_rows::meaning,
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{incident, incident_course},
};

/// Incidents that are counted at once, the newest.
const MOST: i64 = 50_000;

/// How long something took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Took {
    /// Of how many incidents it is known.
    pub count: u64,
    /// Their arithmetic mean; none of none.
    pub mean_secs: Option<f64>,
    /// Half of them took no longer; of an even number the mean of the two in the middle.
    pub median_secs: Option<f64>,
}

/// What some incidents come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// How many.
    pub incidents: u64,
    /// How many nobody has taken yet.
    pub open: u64,
    /// How many somebody is on.
    pub acknowledged: u64,
    /// How many are over.
    pub resolved: u64,
    /// How many were opened again at least once.
    pub reopened: u64,
    /// Their share of all, 0 to 1; none of none.
    pub reopened_share: Option<f64>,
    /// How many are one that had been over and came back.
    pub recurring: u64,
    /// From when they were opened to when they were first acknowledged.
    pub time_to_acknowledge: Took,
    /// From when they were opened to when they were over.
    pub time_to_resolve: Took,
}

/// What the incidents of some time come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IncidentStats {
    /// Whether all of them are counted; if not, only the newest are.
    pub complete: bool,
    /// When the oldest was opened that is counted.
    pub oldest: Option<Timestamp>,
    /// All of them.
    #[serde(flatten)]
    pub all: Tally,
    /// The same by severity; only those that occur.
    pub by_severity: BTreeMap<Severity, Tally>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = incident, check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    num: i64,
    severity: String,
    status: String,
    opened_at: i64,
    resolved_at: Option<i64>,
}

#[derive(Default)]
struct Sum {
    tally: Tally,
    acknowledged: Vec<Duration>,
    resolved: Vec<Duration>,
}

impl Sum {
    fn count(&mut self, row: &Row, course: &Course) {
        let tally = &mut self.tally;
        tally.incidents += 1;
        match row.status.as_str() {
            "open" => tally.open += 1,
            "acknowledged" => tally.acknowledged += 1,
            _ => tally.resolved += 1,
        }
        tally.reopened += u64::from(course.reopened > 0);
        tally.recurring += u64::from(course.recurrence > 0);
        let after = |at: i64| Timestamp::from_millis(at).since(Timestamp::from_millis(row.opened_at));
        self.acknowledged.extend(course.first_acknowledged_at.map(after));
        self.resolved.extend(row.resolved_at.map(after));
    }

    fn tally(self) -> Tally {
        let share = ratio(self.tally.reopened, self.tally.incidents);
        Tally { reopened_share: share, time_to_acknowledge: took(self.acknowledged), time_to_resolve: took(self.resolved), ..self.tally }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    // no more than MOST are counted
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    (whole > 0).then(|| number(part) / number(whole))
}

fn mean(of: &[Duration]) -> Option<f64> {
    let count = f64::from(u32::try_from(of.len()).unwrap_or(u32::MAX));
    (!of.is_empty()).then(|| of.iter().map(Duration::as_secs_f64).sum::<f64>() / count)
}

fn took(mut all: Vec<Duration>) -> Took {
    all.sort_unstable();
    let (count, half) = (all.len(), all.len() / 2);
    let middle = all.get(half.saturating_sub(usize::from(count % 2 == 0))..=half).unwrap_or_default();
    Took { count: u64::try_from(count).unwrap_or(u64::MAX), mean_secs: mean(&all), median_secs: mean(middle) }
}

impl Reader<'_> {
    /// What the incidents come to that pass the filters; words and labels are not looked at.
    pub fn incident_stats(&mut self, filter: &IncidentFilter) -> Result<IncidentStats, LedgerError> {
        let query = filtered(filter).order((incident::opened_at.desc(), incident::num.desc())).limit(MOST + 1);
        let mut rows: Vec<Row> = query.select(Row::as_select()).load(self.conn)?;
        let complete = i64::try_from(rows.len()).unwrap_or(i64::MAX) <= MOST;
        if !complete {
            rows.pop();
        }
        let (mut all, mut by_severity) = (Sum::default(), BTreeMap::<Severity, Sum>::new());
        let nums = rows.iter().map(|row| row.num);
        let (first, last) = (nums.clone().min().unwrap_or(0), nums.max().unwrap_or(0));
        let courses = incident_course::table.filter(incident_course::num.between(first, last)).select(Course::as_select());
        let courses: HashMap<i64, Course> = courses.load(self.conn)?.into_iter().map(|course: Course| (course.num, course)).collect();
        let none = Course::default();
        for row in &rows {
            let course = courses.get(&row.num).unwrap_or(&none);
            all.count(row, course);
            by_severity.entry(meaning(&row.severity)?).or_default().count(row, course);
        }
        let oldest = rows.last().map(|row| Timestamp::from_millis(row.opened_at));
        let by_severity = by_severity.into_iter().map(|(severity, sum)| (severity, sum.tally())).collect();
        Ok(IncidentStats { complete, oldest, all: all.tally(), by_severity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle_and_nothing_comes_of_nothing() {
        let took = |seconds: &[u64]| super::took(seconds.iter().copied().map(Duration::from_secs).collect());
        assert_eq!(took(&[]), Took::default());
        assert_eq!(took(&[3]), Took { count: 1, mean_secs: Some(3.0), median_secs: Some(3.0) });
        assert_eq!(took(&[9, 1]), Took { count: 2, mean_secs: Some(5.0), median_secs: Some(5.0) });
        assert_eq!(took(&[9, 0, 3]), Took { count: 3, mean_secs: Some(4.0), median_secs: Some(3.0) });
        assert_eq!(ratio(1, 4), Some(0.25));
        assert_eq!(ratio(0, 0), None);
    }
}
