//! What changed around an incident: lines never seen before, bursts, silence, metrics out of their usual range.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{Measure, Observation},
    signal::Severity,
    time::Timestamp,
};

use super::{
    pack::{Pack, Points, Series, Shape},
    stats::{Usual, median, millis, real},
    words,
};

/// The time before the incident that counts as the minutes around it, and no longer as what is usual.
const LEAD: Duration = Duration::from_mins(15);
/// With less than so much from before there is nothing to compare with.
pub(super) const BEFORE: Duration = Duration::from_secs(60);
/// So often something would have been expected for its absence to mean something.
const EXPECTED: f64 = 8.0;
/// Fewer points from before say nothing about what is usual.
const POINTS: usize = 5;
/// Changes that are looked into.
const MOST: usize = 200;

/// How something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Lines of a shape that was not seen before.
    New,
    /// Something that people did.
    Deed,
    /// Far more lines of a shape than usual.
    Burst,
    /// No more lines of a shape.
    Stopped,
    /// No more lines at all.
    Silent,
    /// A metric out of its usual range.
    Metric,
}

/// Something that changed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// Whose; an index into the pack's sources.
    pub(super) source: usize,
    pub(super) kind: Kind,
    /// Whether it tells of trouble.
    pub(super) bad: bool,
    pub(super) began: Timestamp,
    /// Whether it was back to usual before the incident began.
    pub(super) over: bool,
    /// How much it says, 0 to 1.
    pub(super) weight: f64,
    /// What shows it: the finding, then an observation out of it.
    pub(super) shown: Vec<Observation>,
    /// The line, if it is lines that changed.
    pub(super) line: Option<String>,
}

/// When what counts as usual ends: some time before the onset, and never more than the first half of what is known.
fn split(pack: &Pack) -> Timestamp {
    let known = pack.window.onset.since(pack.since);
    pack.window.onset.before(LEAD.min(known / 2))
}

/// Whether enough is known from before to tell what is new.
pub(super) fn has_before(pack: &Pack) -> bool {
    pack.window.onset.since(pack.since) >= BEFORE
}

/// Everything that changed, the weightiest first.
pub(super) fn changes(pack: &Pack) -> Vec<Change> {
    let split = split(pack);
    let silent: Vec<usize> = (0..pack.sources.len()).filter(|source| silence(pack, *source).is_some()).collect();
    let mut found: Vec<Change> = pack.shapes.iter().filter_map(|shape| of_shape(pack, shape, split, &silent)).collect();
    found.extend((0..pack.sources.len()).filter_map(|source| silence(pack, source)));
    found.extend(pack.series.iter().filter_map(|series| of_series(pack, series, split)));
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.began.cmp(&b.began)).then(a.kind.cmp(&b.kind)).then(a.source.cmp(&b.source)));
    found.truncate(MOST);
    found
}

fn per_minute(count: f64, span: Duration) -> f64 {
    count * 60_000.0 / millis(span).max(1.0)
}

const fn gravity(severity: Severity) -> f64 {
    match severity {
        Severity::Critical => 1.0,
        Severity::Error => 0.8,
        Severity::Warning => 0.6,
        Severity::Info | Severity::Debug => 0.5,
    }
}

fn of_shape(pack: &Pack, shape: &Shape, split: Timestamp, silent: &[usize]) -> Option<Change> {
    let window = &pack.window;
    let known = window.onset.since(pack.since);
    let is_new = !has_before(pack) || shape.first > pack.since.after(known / 6);
    let lines = |began: Timestamp, usual: Option<f64>, spread: Option<f64>, value: f64, count: u64| Observation::Change {
        at: began,
        until: shape.last,
        source: pack.name(shape.source).to_owned(),
        name: words::shape_name(&shape.sample),
        measure: Measure::Lines,
        usual,
        spread,
        value: round(value),
        count,
    };
    let log = |at| Observation::Log { at, source: pack.name(shape.source).to_owned(), text: shape.sample.clone() };
    let change = |kind, began, weight, finding| Change {
        source: shape.source,
        kind,
        bad: shape.bad,
        began,
        over: over(pack, shape),
        weight,
        shown: vec![finding, log(shape.first)],
        line: Some(shape.sample.clone()),
    };
    let rate = |from: Timestamp| per_minute(real(shape.count), shape.last.since(from).max(Duration::from_mins(1)));
    if is_new {
        let deed = !shape.bad && shape.count <= 5 && words::is_deed(&shape.sample);
        let weight = match (shape.bad, deed) {
            (true, _) => gravity(shape.severity),
            (false, true) => 0.4,
            (false, false) => 0.15,
        };
        if !shape.bad && !has_before(pack) {
            return None; // without a before nothing can be said of lines that are not bad in themselves
        }
        let kind = if deed { Kind::Deed } else { Kind::New };
        return Some(change(kind, shape.first, weight, lines(shape.first, None, None, rate(shape.first), shape.count)));
    }
    if let Some((began, usual, value, count)) = burst(pack, shape, split) {
        let weight = if shape.bad { 0.75 * gravity(shape.severity) } else { 0.3 };
        return Some(change(Kind::Burst, began, weight, lines(began, Some(round(usual.median)), Some(round(usual.spread)), value, count)));
    }
    let active = shape.last.since(shape.first);
    let usual = per_minute(real(shape.count), active.max(Duration::from_secs(10)));
    let expected = usual * millis(pack.until.since(shape.last)) / 60_000.0;
    if shape.count >= 8 && !shape.bad && expected >= EXPECTED && shape.last >= split && !silent.contains(&shape.source) {
        let finding = Observation::Change {
            at: shape.last,
            until: pack.until,
            source: pack.name(shape.source).to_owned(),
            name: words::shape_name(&shape.sample),
            measure: Measure::Lines,
            usual: Some(round(usual)),
            spread: None,
            value: 0.0,
            count: shape.count,
        };
        let stopped = Change { over: false, ..change(Kind::Stopped, shape.last, 0.3, finding) };
        return Some(stopped);
    }
    None
}

/// Whether lines had ceased before the incident began: none came for longer than they usually kept one waiting.
fn over(pack: &Pack, shape: &Shape) -> bool {
    if shape.before == 0 {
        return false;
    }
    let quiet = pack.window.onset.since(shape.last_before);
    let resumed = shape.count > shape.before;
    let gap = shape.last_before.since(shape.first) / u32::try_from(shape.before.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    !resumed && quiet > gap.saturating_mul(2).saturating_add(Duration::from_secs(5))
}

/// When lines began to come far more often than usual, what was usual, what it came to, and how many came.
fn burst(pack: &Pack, shape: &Shape, split: Timestamp) -> Option<(Timestamp, Usual, f64, u64)> {
    let window = &pack.window;
    let parts = |from: Timestamp, to: Timestamp| {
        let counts: Vec<(u16, f64)> =
            (window.part(from)..window.part(to)).map(|part| (part, f64::from(shape.parts.get(&part).copied().unwrap_or(0)))).collect();
        counts
    };
    let width = window.at(1).since(window.at(0)).max(Duration::from_millis(1));
    let before = parts(pack.since, split);
    let total: f64 = before.iter().map(|(_, count)| count).sum();
    let mean = total / real(u64::try_from(before.len()).unwrap_or(1)).max(1.0);
    let usual = Usual::of(before.into_iter().map(|(_, count)| count).collect())?;
    let high = (usual.median.max(mean) + 6.0 * usual.spread.max(mean.sqrt()).max(0.5)).max(2.0 * usual.most);
    let after = parts(split, pack.until.after(width));
    let (first, _) = after.iter().find(|(_, count)| *count > high)?;
    let loud: Vec<f64> = after.iter().filter(|(part, count)| part >= first && *count > high).map(|(_, count)| *count).collect();
    let sum: f64 = loud.iter().sum();
    if sum < 10.0 {
        return None;
    }
    let value = per_minute(sum / real(u64::try_from(loud.len()).unwrap_or(1)), width);
    let count = shape.parts.range(first..).map(|(_, count)| u64::from(*count)).sum();
    let scaled = Usual { median: per_minute(mean, width), spread: per_minute(usual.spread, width), ..usual };
    Some((window.at(*first).max(shape.first), scaled, value, count))
}

/// A source that always had something to say, and says nothing any more.
fn silence(pack: &Pack, index: usize) -> Option<Change> {
    let source = pack.sources.get(index)?;
    let lines: u64 = source.lines.values().map(|count| u64::from(*count)).sum();
    let (first, last) = (*source.lines.keys().next()?, *source.lines.keys().next_back()?);
    let active = pack.window.at(last.saturating_add(1)).since(pack.window.at(first));
    let at = pack.shapes.iter().filter(|shape| shape.source == index).map(|shape| shape.last).max()?;
    let usual = per_minute(real(lines), active);
    let expected = usual * millis(pack.until.since(at)) / 60_000.0;
    if lines < 20 || expected < EXPECTED || at < split(pack) {
        return None;
    }
    let finding = Observation::Change {
        at,
        until: pack.until,
        source: source.name.clone(),
        name: String::new(),
        measure: Measure::AllLines,
        usual: Some(round(usual)),
        spread: None,
        value: 0.0,
        count: lines,
    };
    Some(Change { source: index, kind: Kind::Silent, bad: true, began: at, over: false, weight: 0.6, shown: vec![finding], line: None })
}

/// An unbroken time in which a metric was out of its usual range.
struct Spell {
    first: u16,
    last: u16,
    points: u64,
    /// Parts behind it in which the metric was as usual.
    usual_after: u32,
}

fn of_series(pack: &Pack, series: &Series, split: Timestamp) -> Option<Change> {
    let last_usual = pack.window.part(split);
    let before: Vec<f64> = series.parts.range(..last_usual).map(|(_, points)| points.mean()).collect();
    if before.len() < POINTS {
        return None;
    }
    let usual = Usual::of(before)?;
    let mut spells: Vec<Spell> = Vec::new();
    let mut open = false;
    for (part, points) in &series.parts {
        let beyond = usual.is_beyond(points.mean(), 6.0, 0.03);
        let count = u64::from(points.count);
        match (beyond, open, spells.last_mut()) {
            (true, true, Some(spell)) => {
                spell.last = *part;
                spell.points = spell.points.saturating_add(count);
                spell.usual_after = 0;
            }
            (true, ..) => spells.push(Spell { first: *part, last: *part, points: count, usual_after: 0 }),
            (false, _, Some(spell)) => spell.usual_after = spell.usual_after.saturating_add(1),
            (false, _, None) => {}
        }
        open = spells.last().is_some_and(|spell| spell.usual_after <= 1);
    }
    let onset = pack.window.part(pack.window.onset);
    let over = |spell: &Spell| spell.last < onset && spell.usual_after >= 2;
    // one that was there when it began says most, then the one that lasted longest
    let spell =
        spells.iter().filter(|spell| spell.points >= 2 || spell.usual_after == 0).max_by_key(|spell| (!over(spell), spell.points))?;
    let inside = || series.parts.range(spell.first..=spell.last).map(|(_, points)| points);
    let middle = median(&mut inside().map(Points::mean).collect::<Vec<_>>())?;
    let (high, points) = (middle > usual.median, inside().next()?);
    let (first, began) = if high { points.most } else { points.least };
    let furthest = if high {
        inside().map(|points| points.most.0).fold(f64::NEG_INFINITY, f64::max)
    } else {
        inside().map(|points| points.least.0).fold(f64::INFINITY, f64::min)
    };
    let until = inside().map(|points| points.most.1.max(points.least.1)).max()?;
    let source = pack.name(series.source).to_owned();
    let finding = Observation::Change {
        at: began,
        until,
        source: source.clone(),
        name: series.name.clone(),
        measure: Measure::Value,
        usual: Some(round(usual.median)),
        spread: Some(round(usual.spread)),
        value: furthest,
        count: spell.points,
    };
    let point = Observation::Metric { at: began, source, name: series.name.clone(), value: first, expected: None };
    Some(Change {
        source: series.source,
        kind: Kind::Metric,
        bad: true,
        began,
        over: over(spell),
        weight: 0.7,
        shown: vec![finding, point],
        line: None,
    })
}

/// Two digits behind the point are more than anybody reads.
pub(super) fn round(value: f64) -> f64 {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.is_finite() { rounded } else { 0.0 }
}

/// The share of lines that tell of trouble, before and since, if it rose markedly.
pub(super) fn mix(pack: &Pack) -> Option<Observation> {
    let [before, since] = pack.lines;
    let [bad_before, bad_since] = pack.bad;
    let percent = |bad: u64, all: u64| round(100.0 * real(bad) / real(all).max(1.0));
    let (usual, value) = (percent(bad_before, before), percent(bad_since, since));
    (before >= 20 && since >= 10 && value > 2.0 * usual + 5.0).then(|| Observation::Change {
        at: pack.window.onset,
        until: pack.until,
        source: String::new(),
        name: String::new(),
        measure: Measure::Errors,
        usual: Some(usual),
        spread: None,
        value,
        count: since,
    })
}

/// Lines of each source that tell of trouble and were there when the incident began, by what they say.
pub(super) fn complaints<'a>(pack: &'a Pack, found: &'a [Change]) -> BTreeMap<usize, Vec<&'a Change>> {
    let mut by_source: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
    for change in found.iter().filter(|change| change.bad && !change.over && change.line.is_some()) {
        if change.source < pack.sources.len() {
            by_source.entry(change.source).or_default().push(change);
        }
    }
    by_source
}
