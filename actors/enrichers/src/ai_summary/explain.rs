//! From the evidence pack to the explanation: pure, so that the same evidence gives the same words.

use opspilot_kernel::{
    alert::{Alert, Measure, Observation},
    explanation::{Cause, Claim, Explanation, Provider, SimilarIncident},
    incident::Incident,
    time::Timestamp,
};
use opspilot_ledger::Evidence;

use super::{
    causes::{Suspect, suspects},
    changes::{Change, Kind, changes, has_before, mix},
    config::Runbook,
    memory::{self, Offered},
    pack::Pack,
    say::{self, Say},
    stats::real,
    verify::prove,
    words,
};

/// Bounds of what is said.
const CONDITIONS: usize = 5;
const CHANGES: usize = 14;
const OVER: usize = 4;
const NAMES: usize = 4;
const STEPS: usize = 8;
/// No explanation by rules alone is surer than this.
const SUREST: f64 = 0.95;

/// Everything an explanation follows from.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) incident: &'a Incident,
    pub(super) alerts: &'a [Alert],
    /// The incident's own evidence and what was found before.
    pub(super) own: &'a [Evidence],
    /// How many pieces were found before, all in all.
    pub(super) found: u64,
    /// What happened around it; none if it could not be read.
    pub(super) pack: Option<&'a Pack>,
    pub(super) earlier: &'a [(Incident, bool)],
    pub(super) runbooks: &'a [Runbook],
    pub(super) actions: &'a [Offered],
    pub(super) now: Timestamp,
    /// What was not to be had, in words.
    pub(super) missing: Vec<String>,
}

/// An explanation that was checked, and what comes with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Explained {
    pub(super) explanation: Explanation,
    pub(super) similar: Vec<SimilarIncident>,
    /// What was found and is cited.
    pub(super) evidence: Vec<Evidence>,
    pub(super) found: u64,
    /// Claims and causes that could not be proved.
    pub(super) dropped: u64,
}

/// What is cited: each observation once, under an id that it keeps.
struct Exhibits<'a> {
    own: &'a [Evidence],
    fresh: Vec<Evidence>,
    found: u64,
}

impl Exhibits<'_> {
    fn cite(&mut self, observation: &Observation) -> String {
        if let Some(known) = self.own.iter().chain(&self.fresh).find(|piece| piece.observation == *observation) {
            return known.id.clone();
        }
        self.found = self.found.saturating_add(1);
        let id = format!("f{}", self.found);
        self.fresh.push(Evidence { id: id.clone(), observation: observation.clone() });
        id
    }
}

struct Draft<'a> {
    exhibits: Exhibits<'a>,
    claims: Vec<Claim>,
}

impl Draft<'_> {
    /// Says it, if it can be said of these observations.
    fn say(&mut self, what: Say, about: &[&Observation]) -> bool {
        let Some(said) = what.about(about) else { return false };
        let evidence = about.iter().map(|observation| self.exhibits.cite(observation)).collect();
        let claim = Claim { text: said.text, kind: said.kind, evidence, quote: said.quote };
        if !self.claims.contains(&claim) {
            self.claims.push(claim);
        }
        true
    }
}

fn condition(alert: &Alert) -> Observation {
    Observation::Change {
        at: alert.first_seen_at,
        until: alert.last_seen_at,
        source: alert.source.clone(),
        name: alert.name.clone(),
        measure: Measure::Alert,
        usual: None,
        spread: None,
        value: real(alert.occurrences),
        count: alert.occurrences,
    }
}

/// The incident itself as a condition, where its alerts are not to be had.
fn bare_condition(incident: &Incident) -> Observation {
    Observation::Change {
        at: incident.opened_at,
        until: incident.last_seen_at,
        source: incident.source.clone(),
        name: incident.rule.clone(),
        measure: Measure::Alert,
        usual: None,
        spread: None,
        value: real(incident.occurrences),
        count: incident.occurrences,
    }
}

/// Explains an incident.
pub(super) fn explain(input: &Input<'_>) -> Explained {
    let mut draft = Draft { exhibits: Exhibits { own: input.own, fresh: Vec::new(), found: input.found }, claims: Vec::new() };
    let mut conditions: Vec<Observation> = input.alerts.iter().map(condition).collect();
    conditions.sort_by_key(Observation::at);
    if conditions.is_empty() {
        conditions.push(bare_condition(input.incident));
    }
    let sources: Vec<String> = conditions.iter().map(|condition| condition.source().to_owned()).collect();
    for condition in conditions.iter().take(CONDITIONS) {
        draft.say(Say::Condition, &[condition]);
    }
    let alert = conditions.first().cloned().unwrap_or_else(|| bare_condition(input.incident));
    let of_alert = |piece: &&Evidence| {
        !matches!(piece.observation, Observation::Change { .. }) && sources.contains(&piece.observation.source().to_owned())
    };
    if let Some(first) =
        input.own.iter().filter(|piece| piece.id.starts_with('e')).filter(of_alert).min_by_key(|piece| piece.observation.at())
    {
        draft.say(Say::First, &[&first.observation]);
    }

    let found = input.pack.map(changes).unwrap_or_default();
    let suspected = input.pack.map(|pack| suspects(pack, &found, &sources)).unwrap_or_default();
    if let Some(pack) = input.pack {
        around(&mut draft, pack, &found, &suspected, &alert, &sources);
    }
    let causes = suspected.iter().filter_map(|suspect| cause(&mut draft, suspect, &alert)).collect();

    let similar = memory::similar(input.incident, input.earlier);
    for earlier in similar.iter().take(2) {
        draft.say(Say::Similar, &[&memory::as_evidence(earlier, input.incident)]);
    }
    let Draft { exhibits, claims } = draft;
    let evidence: Vec<Evidence> = input.own.iter().chain(&exhibits.fresh).cloned().collect();
    let mut explanation = Explanation {
        summary: String::new(),
        claims,
        causes,
        next_steps: Vec::new(),
        runbooks: Vec::new(),
        suggested_actions: Vec::new(),
        confidence: 0.0,
        provider: Provider::Deterministic,
        degraded: !input.missing.is_empty(),
        generated_at: input.now,
    };
    let dropped = prove(&mut explanation, &evidence);
    finish(input, &mut explanation, &suspected, &similar, &evidence, dropped);
    let cited = |piece: &Evidence| {
        let claims = explanation.claims.iter().map(|claim| &claim.evidence);
        claims.chain(explanation.causes.iter().map(|cause| &cause.evidence)).any(|ids| ids.contains(&piece.id))
    };
    let kept = evidence.into_iter().filter(|piece| piece.id.starts_with('f') && cited(piece)).collect();
    Explained { similar, evidence: kept, found: exhibits.found, dropped, explanation }
}

/// What was seen around it.
fn around(draft: &mut Draft<'_>, pack: &Pack, found: &[Change], suspected: &[Suspect], alert: &Observation, sources: &[String]) {
    let others = found
        .iter()
        .filter(|change| !(change.kind == Kind::New && change.bad && sources.iter().any(|own| own == pack.name(change.source))))
        .count();
    let looked = Observation::Change {
        at: pack.since,
        until: pack.until,
        source: String::new(),
        name: String::new(),
        measure: Measure::Looked,
        usual: None,
        spread: None,
        value: real(u64::try_from(others).unwrap_or(0)),
        count: pack.signals,
    };
    draft.say(Say::NoBefore, &[&looked, alert]);
    // what leads to the likeliest cause first, then by time
    let leads = |change: &&Change| {
        let name = say::name(pack.name(change.source));
        let alias = words::alias(pack.name(change.source));
        suspected.iter().position(|suspect| suspect.component == name || alias.as_deref() == Some(&suspect.component)).unwrap_or(usize::MAX)
    };
    let mut telling: Vec<&Change> = found.iter().filter(|change| !change.over).collect();
    telling.sort_by_key(|change| leads(change).min(1));
    let mut said = 0_usize;
    for change in telling {
        if said >= CHANGES {
            break;
        }
        let shown: Vec<&Observation> = change.shown.iter().collect();
        let done = match (change.kind, shown.as_slice()) {
            (Kind::New, [finding, line]) if has_before(pack) => draft.say(Say::New, &[finding, line, &looked]),
            (Kind::New, [_, line]) => draft.say(Say::First, &[line]),
            (Kind::Deed, shown) => draft.say(Say::Deed, shown),
            (Kind::Burst, shown) => draft.say(Say::Burst, shown),
            (Kind::Stopped, shown) => draft.say(Say::Stopped, shown),
            (Kind::Silent, shown) => draft.say(Say::Silent, shown),
            (Kind::Metric, shown) => draft.say(Say::Metric, shown),
            (Kind::New, _) => false,
        };
        said += usize::from(done);
    }
    for change in found.iter().filter(|change| change.over && change.bad).take(OVER) {
        change.shown.first().map(|finding| draft.say(Say::Over, &[finding, alert]));
    }
    let mut named = 0_usize;
    for change in found.iter().filter(|change| change.bad && !change.over) {
        let Some(line @ Observation::Log { source, text, .. }) = change.shown.last() else { continue };
        let by = suspected.iter().flat_map(|suspect| &suspect.shown).find(|other| say::named(source, text, Some(other)).is_some());
        let about: Vec<&Observation> = std::iter::once(line).chain(by).collect();
        named += usize::from(named < NAMES && draft.say(Say::Names, &about));
    }
    if let Some(lines) = mix(pack) {
        draft.say(Say::Errors, &[&lines]);
    }
    draft.say(Say::Looked, &[&looked]);
}

fn cause(draft: &mut Draft<'_>, suspect: &Suspect, alert: &Observation) -> Option<Cause> {
    let about: Vec<&Observation> = std::iter::once(alert).chain(&suspect.shown).collect();
    let text = say::cause(&suspect.component, &about)?;
    let evidence = about.iter().map(|observation| draft.exhibits.cite(observation)).collect();
    Some(Cause { component: suspect.component.clone(), share: suspect.share, text, evidence })
}

/// What follows from the claims that were proved: summary, runbooks, steps, actions, confidence.
fn finish(
    input: &Input<'_>,
    explanation: &mut Explanation,
    suspected: &[Suspect],
    similar: &[SimilarIncident],
    evidence: &[Evidence],
    dropped: u64,
) {
    let texts = texts(input, explanation, evidence);
    explanation.runbooks = memory::runbooks(input.runbooks, &texts);
    let first = explanation.causes.first().map(|cause| cause.component.clone());
    let fitting = memory::actions(input.actions, first.as_deref(), &texts, input.incident);
    explanation.suggested_actions = fitting.iter().filter(|(_, filled)| *filled).map(|(action, _)| action.clone()).collect();
    explanation.confidence = confidence(input, explanation, suspected, similar, dropped);
    explanation.summary = summary(explanation, &input.missing);
    let fitting: Vec<&str> = fitting.iter().map(|(action, _)| action.action.as_str()).collect();
    explanation.next_steps = steps(input, explanation, similar, &fitting);
}

/// What the words of runbooks and actions are looked for in, and where each text is from. Of other components only what a cause cites.
fn texts(input: &Input<'_>, explanation: &Explanation, evidence: &[Evidence]) -> Vec<(String, String)> {
    let incident = input.incident;
    let mut texts = vec![("the title".to_owned(), incident.title.clone()), ("the rule's name".to_owned(), incident.rule.clone())];
    texts.push(("the description".to_owned(), incident.description.clone()));
    texts.extend(incident.labels.iter().map(|(name, value)| (format!("the label {}", say::name(name)), format!("{name} {value}"))));
    for alert in input.alerts {
        texts.push((format!("the alert {}", say::name(&alert.name)), alert.title.clone()));
    }
    let likely = explanation.causes.iter().filter(|cause| cause.share >= 0.2);
    texts.extend(likely.clone().map(|cause| ("a likely cause".to_owned(), cause.component.clone())));
    let ids: Vec<&String> = likely.flat_map(|cause| &cause.evidence).collect();
    for piece in evidence.iter().filter(|piece| piece.id.starts_with('e') || ids.contains(&&piece.id)) {
        match &piece.observation {
            Observation::Log { text, .. } => texts.push((format!("the evidence {}", piece.id), text.clone())),
            Observation::Metric { name, .. } | Observation::Change { name, .. } => {
                texts.push((format!("the evidence {}", piece.id), name.replace('_', " ")))
            }
        }
    }
    texts
}

/// How sure it is: the share of claims that were proved, times how much of the time was seen, times
/// `0.1 + 0.45·agreement + 0.3·margin + 0.1·before`; *agreement* is how many of four kinds of evidence speak for the likeliest
/// cause (its trouble came first, others name it, its trouble is its own, a metric of it is out of range), *margin* by how much
/// its share exceeds the next one's, *before* whether the same alert was there before. Never more than 0.95.
fn confidence(input: &Input<'_>, explanation: &Explanation, suspected: &[Suspect], similar: &[SimilarIncident], dropped: u64) -> f64 {
    let kept = real(u64::try_from(explanation.claims.len().saturating_add(explanation.causes.len())).unwrap_or(0));
    let proved = kept / (kept + real(dropped)).max(1.0);
    let seen = match input.pack {
        None => 0.3,
        Some(pack) if !has_before(pack) => 0.5,
        Some(_) if explanation.degraded => 0.7,
        Some(_) => 1.0,
    };
    let share = |place: usize| explanation.causes.get(place).map_or(0.0, |cause| cause.share);
    let first = explanation.causes.first().and_then(|cause| suspected.iter().find(|suspect| suspect.component == cause.component));
    let agreement = first.map_or(0.0, |suspect| f64::from(suspect.agreement) / 4.0);
    // standing alone is no margin: without agreement there was nothing else to choose from
    let margin = (share(0) - share(1)) * agreement.min(0.5) * 2.0;
    let before = f64::from(u8::from(similar.first().is_some_and(|earlier| earlier.score >= 0.7)));
    let sure = proved * seen * (0.1 + 0.45 * agreement + 0.3 * margin + 0.1 * before);
    (100.0 * sure.min(SUREST)).round() / 100.0
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// The first condition, the likeliest cause, what others there are, and how complete it is: all of it words of what was proved.
fn summary(explanation: &Explanation, missing: &[String]) -> String {
    let mut said: Vec<String> = explanation.claims.first().map(|claim| sentence(&claim.text)).into_iter().collect();
    let percent = |share: f64| say::number(100.0 * share);
    match explanation.causes.as_slice() {
        [] => said.push("Nothing that was seen points to a cause.".to_owned()),
        [first, rest @ ..] => {
            said.push(format!("Likely cause: {} ({} %). {}", first.component, percent(first.share), sentence(&first.text)));
            let others: Vec<String> =
                rest.iter().take(2).map(|cause| format!("{} ({} %)", cause.component, percent(cause.share))).collect();
            if !others.is_empty() {
                said.push(format!("Less likely: {}.", others.join(", ")));
            }
        }
    }
    if let Some(looked) = explanation.claims.iter().find(|claim| claim.text.ends_with("nothing else changed")) {
        said.push(sentence(&looked.text));
    }
    if !missing.is_empty() {
        said.push(format!("This is not complete: {}.", missing.join("; ")));
    }
    said.join(" ")
}

fn steps(input: &Input<'_>, explanation: &Explanation, similar: &[SimilarIncident], fitting: &[&str]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    if let Some(runbook) = explanation.runbooks.first() {
        steps.extend(runbook.steps.iter().take(STEPS / 2).map(|step| format!("{}: {step}", runbook.title)));
    }
    if let Some(cause) = explanation.causes.first() {
        steps.push(format!("Look at {} first: {}", cause.component, cause.text));
    }
    for action in fitting.iter().filter_map(|id| input.actions.iter().find(|action| action.id == *id)) {
        steps.push(format!("Consider proposing the action {} ({})", action.id, action.title));
    }
    if let Some((earlier, how)) = similar.iter().find_map(|earlier| earlier.resolution.as_ref().map(|how| (earlier, how))) {
        steps.push(format!("See how {} ended: {}", earlier.id, say::excerpt(how)));
    }
    if steps.is_empty() {
        steps.push(format!("Look at {}: nothing around the incident points elsewhere", say::name(&input.incident.source)));
    }
    steps.truncate(STEPS);
    steps
}
