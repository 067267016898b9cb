//! `enricher.correlator` finds what alerts share: the component they are about, what that depends on, and what storms have
//! in common.
//!
//! It names the keys of each alert that begins; the incident store joins, founds and merges by them. An alert joins an open
//! incident that is about the same component, about one that it depends on, or about one that depends on it, if that got an
//! alert within the window. A name, a label or a word alone joins nothing: only when many incidents that begin at once share
//! it are they one storm, and what has it from then on joins. What is found does not depend on the order within a second: a
//! storm is looked for when the second is over, and joining several is merging them.
//!
//! Its actor is the one of every stage, [`StageActor`](crate::stage_actor::StageActor).
//!
//! | Consumes   | judged entries of the alert log, from the pipeline; the dependency graph      |
//! | Emits      | the keys of each alert that begins, with their derivation                     |
//! | Keeps      | nothing: who has a key is read with every batch                               |
//! | On restart | is ready at once                                                              |

pub(crate) mod config;
mod keys;
#[cfg(test)]
mod tests;
mod words;

use opspilot_kernel::{alert::Transition, ids::AlertId, module::ModuleId, topology::Graph};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{Board, BoardRequest, Decision},
};
use opspilot_runtime::{Entry, Module, ModuleContext, ModuleSpec, StartError, TopologyView};
use serde_json::json;

pub use self::config::Config;
use self::keys::keys;
use crate::{
    stage::{Bond, Grouping, Item, StormRule, Verdict, continuation},
    stage_actor::{Answer, Decider, StageModule},
};

/// `enricher.correlator`.
pub const ID: ModuleId = ModuleId::new("enricher.correlator");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<Correlator>();

/// The stage's logic.
pub(crate) struct Correlator {
    config: Config,
    view: TopologyView,
}

impl Correlator {
    pub(crate) fn new(config: Config, view: TopologyView) -> Correlator {
        Correlator { config, view }
    }

    fn grouping(&self, graph: &Graph, entry: &AlertEntry) -> Option<Grouping> {
        match entry {
            AlertEntry::Record { record, .. } if record.transition == Transition::Firing => {
                let storm = StormRule::from(&self.config.storm).incidents;
                Some(Grouping { keys: keys(&self.config, graph, record), within: self.config.window.0, storm })
            }
            AlertEntry::Record { .. } | AlertEntry::Tick { .. } => None,
        }
    }
}

impl Decider for Correlator {
    const ID: ModuleId = ID;

    fn decide(&self, _: &Board, mut items: Vec<Item>) -> Answer {
        let graph = self.view.graph();
        let mut decisions = Vec::new();
        for item in &mut items {
            if let AlertEntry::Tick { .. } = &item.entry {
                item.storm = Some(StormRule::from(&self.config.storm));
            }
            item.grouping = self.grouping(&graph, &item.entry);
            decisions.extend(explain(item));
        }
        Answer { items, decisions, ..Answer::default() }
    }

    fn reads(&self, entries: &[AlertEntry], request: &mut BoardRequest) {
        let graph = self.view.graph();
        for entry in entries {
            let at = match entry {
                AlertEntry::Tick { at, .. } => *at,
                AlertEntry::Record { record, .. } => record.logged_at,
            };
            let since = at.before(self.config.storm.window.0);
            request.opened_since = Some(request.opened_since.map_or(since, |earlier| earlier.min(since)));
            for key in self.grouping(&graph, entry).into_iter().flat_map(|grouping| grouping.keys) {
                if key.seeks {
                    request.keys.insert(key.name);
                } else if key.counts {
                    request.storms.insert(key.name);
                }
            }
        }
    }
}

/// What the stage found of an episode that begins or goes on.
fn explain(item: &Item) -> Option<Decision> {
    let AlertEntry::Record { seq, record } = &item.entry else { return None };
    let grouping = item.grouping.as_ref()?;
    let alert: AlertId = match item.verdict {
        Some(Verdict::Starts { goes_on: true, .. }) => continuation(record),
        Some(Verdict::Starts { .. } | Verdict::Resumes) | None => record.alert.clone(),
        Some(Verdict::Counts | Verdict::Ends | Verdict::Late | Verdict::Unknown) => return None,
    };
    let value = |kind: &str, bond: Bond| {
        let of = move |key: &crate::stage::Key| {
            Some((key.name.split_once(':')?, key.bond))
                .filter(|((its, _), had)| *its == kind && *had == bond)
                .map(|((_, value), _)| value.to_owned())
        };
        grouping.keys.iter().filter_map(of).collect::<Vec<_>>()
    };
    let own = value("component", Bond::Likeness);
    let below = value("component", Bond::ThisDependsOn);
    let (outcome, mut text) = match own.first() {
        Some(component) => ("grouped", format!("it is about {component}: an incident about the same component takes it in")),
        None => ("alone", "its labels name no component, so it stands by itself".to_owned()),
    };
    if !below.is_empty() {
        text.push_str(&format!("; so does one about what it depends on ({})", below.join(", ")));
    }
    let shared = grouping.keys.iter().filter(|key| key.counts).count();
    if shared > 0 {
        text.push_str(&format!("; in a storm it joins by any of {shared} things that others may share"));
    }
    let inputs = json!({ "keys": grouping.keys.iter().map(|key| &key.name).collect::<Vec<_>>(), "window_secs": grouping.within.as_secs() });
    Some(Decision {
        seq: *seq,
        at: record.logged_at,
        stage: ID.as_str(),
        alert: Some(alert),
        incident: None,
        outcome,
        text,
        inputs,
        repeats: false,
    })
}

impl ModuleSpec for Correlator {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "finds which alerts belong together: by component, by dependency, and in storms by anything they share";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let view = ctx.topology.clone();
        let own = view.clone();
        let read = move |section| serde_json::from_value::<Config>(section).map(|config| Correlator::new(config, own.clone()));
        Ok(Box::new(StageModule::start(ctx, Correlator::new(config, view), read)))
    }
}
