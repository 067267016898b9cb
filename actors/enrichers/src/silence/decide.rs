//! What holds back each alert of a batch, and on ticks the alerts that fire already.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    facets::Facets,
    fingerprint::Fingerprint,
    ids::AlertId,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{AlertState, Board, Shield, Sweep},
};

use super::judge::{Case, Judge, Rules};
use crate::{
    dedup::decide::{Episode, judge},
    stage::{Item, Swept, Verdict},
};

/// Alerts that one tick looks at again; further ones wait for the next, which is due at once.
pub(crate) const SWEPT_PER_TICK: u32 = 1000;

/// The newest episode under a claim, as it stands between two entries of a batch.
struct Newest {
    episode: Episode,
    labels: BTreeMap<String, String>,
    name: String,
    source: String,
    severity: Severity,
    detected_by: String,
    fingerprint: Fingerprint,
    title: String,
    /// When it began, if it was held back then.
    began: Option<Timestamp>,
    last_logged_at: Timestamp,
    suppressed_by: Option<String>,
    shields: Vec<Shield>,
}

impl Newest {
    fn of(state: &AlertState) -> Newest {
        let alert = &state.alert;
        Newest {
            episode: Episode::of(state),
            labels: alert.labels.clone(),
            name: alert.name.clone(),
            source: alert.source.clone(),
            severity: alert.severity,
            detected_by: alert.detected_by.clone(),
            fingerprint: alert.fingerprint,
            title: alert.title.clone(),
            began: state.aside.as_ref().and_then(|aside| aside.began),
            last_logged_at: state.last_logged_at,
            suppressed_by: alert.suppressed_by.clone(),
            shields: state.aside.as_ref().map(|aside| aside.shields.clone()).unwrap_or_default(),
        }
    }

    fn begun(record: &AlertRecord) -> Newest {
        Newest {
            episode: Episode { alert: record.alert.clone(), over: None },
            labels: record.labels.clone(),
            name: record.rule.clone(),
            source: record.source.clone(),
            severity: record.severity,
            detected_by: record.detected_by.clone(),
            fingerprint: record.fingerprint,
            title: record.title.clone(),
            began: None,
            last_logged_at: record.logged_at,
            suppressed_by: None,
            shields: Vec::new(),
        }
    }

    fn facets(&self) -> Facets<'_> {
        Facets {
            labels: &self.labels,
            name: &self.name,
            source: &self.source,
            severity: self.severity,
            detected_by: &self.detected_by,
            fingerprint: self.fingerprint,
        }
    }

    fn fires(&self) -> bool {
        self.episode.over.is_none()
    }
}

/// A batch on its way.
struct Desk<'a> {
    rules: &'a Rules,
    board: &'a Board,
    judge: Judge<'a>,
    sweep: Sweep,
    touched: BTreeMap<AlertId, Newest>,
}

/// Says of every item what holds its alert back; how far alerts that fire were looked at, if that changed.
pub(crate) fn decide(rules: &Rules, board: &Board, items: &mut [Item]) -> Option<Sweep> {
    let judge = Judge::new(rules, &board.silences, &board.inhibitors);
    let mut desk = Desk { rules, board, judge, sweep: board.sweep.clone(), touched: BTreeMap::new() };
    for item in items {
        match item.entry.clone() {
            AlertEntry::Record { record, .. } => desk.record(item, &record),
            AlertEntry::Tick { at, .. } => desk.tick(item, at),
        }
    }
    (desk.sweep != board.sweep).then_some(desk.sweep)
}

impl Desk<'_> {
    fn touch(&mut self, claim: &AlertId) -> Option<&mut Newest> {
        if !self.touched.contains_key(claim) {
            self.touched.insert(claim.clone(), Newest::of(self.board.alerts.get(claim)?));
        }
        self.touched.get_mut(claim)
    }

    fn record(&mut self, item: &mut Item, record: &AlertRecord) {
        let claim = &record.alert;
        let known = self.touch(claim).map(|newest| newest.episode.clone());
        let verdict = item.verdict.unwrap_or_else(|| judge_without_dedup(record, known.as_ref()));
        match verdict {
            Verdict::Starts { .. } => {
                let before = self.touch(claim).map(|newest| newest.shields.clone()).unwrap_or_default();
                self.touched.insert(claim.clone(), Newest { shields: before, ..Newest::begun(record) });
            }
            Verdict::Resumes | Verdict::Counts => {
                if known.is_none() {
                    self.touched.insert(claim.clone(), Newest::begun(record));
                }
                if let Some(newest) = self.touch(claim) {
                    newest.severity = newest.severity.max(record.severity);
                    newest.last_logged_at = newest.last_logged_at.max(record.logged_at);
                    newest.episode.over = None;
                }
            }
            Verdict::Ends => {
                if let Some(newest) = self.touch(claim) {
                    newest.episode.over = Some((record.logged_at, record.resolved_by));
                    newest.last_logged_at = newest.last_logged_at.max(record.logged_at);
                    let (before, title) = (std::mem::take(&mut newest.shields), newest.title.clone());
                    self.reshield(claim, &title, &before, &[]);
                    item.shields = (!before.is_empty()).then(Vec::new);
                }
                return;
            }
            Verdict::Late | Verdict::Unknown => return,
        }
        let Some(mut newest) = self.touched.remove(claim) else { return };
        // never judged by an earlier time than what was judged already
        let at = record.logged_at.max(newest.last_logged_at).max(self.sweep.until);
        let anew = record.transition == Transition::Firing;
        item.shields = self.shields(claim, &mut newest);
        if verdict != Verdict::Counts {
            newest.suppressed_by = None;
        }
        item.suppression = self.judge.judge(case(claim, &newest, anew), at);
        newest.suppressed_by = item.suppression.as_ref().map(|suppression| suppression.by.written(None));
        if verdict != Verdict::Counts {
            newest.began = item.suppression.as_ref().map(|_| record.logged_at);
        }
        if item.suppression.is_some() && self.sweep.plan.is_empty() {
            self.sweep.plan = self.rules.plan().to_owned();
        }
        self.touched.insert(claim.clone(), newest);
    }

    /// What it holds others back by, if that changed.
    fn shields(&mut self, claim: &AlertId, newest: &mut Newest) -> Option<Vec<Shield>> {
        let shields = self.rules.shields(newest.facets());
        if shields == newest.shields {
            return None;
        }
        let before = std::mem::replace(&mut newest.shields, shields.clone());
        self.reshield(claim, &newest.title, &before, &shields);
        Some(shields)
    }

    fn reshield(&mut self, claim: &AlertId, title: &str, before: &[Shield], shields: &[Shield]) {
        if before != shields {
            self.judge.shield(claim, title, before, shields);
            self.sweep.again = true;
        }
    }

    /// Looks at alerts that fire, if something began or ended that holds alerts back.
    fn tick(&mut self, item: &mut Item, at: Timestamp) {
        let Some(mut sweep) = self.rules.sweep_at(&self.board.silences, &self.sweep, at) else { return };
        let place = sweep.place.take();
        let behind = |claim: &&AlertId| place.as_ref().is_none_or(|place| *claim > place);
        let claims: BTreeSet<AlertId> = self.board.alerts.keys().chain(self.touched.keys()).filter(behind).cloned().collect();
        let most = usize::try_from(SWEPT_PER_TICK).unwrap_or(usize::MAX);
        let firing: Vec<AlertId> = claims.into_iter().filter(|claim| self.fires(claim)).take(most).collect();
        self.sweep = sweep;
        // what holds others back first, so that all of these are judged by the same
        for claim in &firing {
            let Some(mut newest) = self.take(claim) else { continue };
            let shields = self.shields(claim, &mut newest);
            item.swept.push(Swept { claim: claim.clone(), suppression: None, shields });
            self.touched.insert(claim.clone(), newest);
        }
        for swept in &mut item.swept {
            let Some(mut newest) = self.take(&swept.claim) else { continue };
            let at = self.sweep.until.max(newest.last_logged_at);
            swept.suppression = self.judge.judge(case(&swept.claim, &newest, false), at);
            newest.suppressed_by = swept.suppression.as_ref().map(|suppression| suppression.by.written(None));
            self.touched.insert(swept.claim.clone(), newest);
        }
        self.sweep.place = firing.last().filter(|_| firing.len() >= most).cloned();
    }

    fn fires(&self, claim: &AlertId) -> bool {
        match self.touched.get(claim) {
            Some(newest) => newest.fires(),
            None => self.board.alerts.get(claim).is_some_and(|state| state.alert.status == AlertStatus::Firing),
        }
    }

    fn take(&mut self, claim: &AlertId) -> Option<Newest> {
        self.touched.remove(claim).or_else(|| self.board.alerts.get(claim).map(Newest::of))
    }
}

fn judge_without_dedup(record: &AlertRecord, known: Option<&Episode>) -> Verdict {
    judge(record, known, None)
}

fn case<'a>(claim: &'a AlertId, newest: &'a Newest, anew: bool) -> Case<'a> {
    Case { alert: newest.facets(), claim, began: newest.began, current: newest.suppressed_by.as_deref(), anew }
}
