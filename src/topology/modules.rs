//! The modules that run: started in order, switched one by one, reconfigured together or not at all.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use opspilot_actions::safe;
use opspilot_detectors::heartbeat;
use opspilot_enrichers::{
    SILENCE, Stages,
    ai_summary::{self, AiSummary, ExplainError, Offered},
    pipeline::Pipeline,
    topology::{self, Topology, TopologyDesk},
};
use opspilot_kernel::{
    ids::{DeadLetterId, IncidentId},
    module::ModuleId,
    principal::Actor,
};
use opspilot_ledger::{LedgerError, Priority};
use opspilot_runtime::{Applied, Entry, Handle, Module, ModuleContext, ModuleError, Requeue, RequeueError, StartError};
use opspilot_safety::Gate;
use slog::{error, info};
use tokio::sync::Mutex;

use super::groups::Groups;
use crate::{
    config::ModuleSettings,
    http::{
        dashboard::{self, Dashboard},
        live::{self, Live},
        ping::Pings,
        silences::Silencing,
        state::{ControlError, Retried, Switch},
    },
};

/// How long somebody waits to hear what became of a dead letter.
const RETRY_DEADLINE: Duration = Duration::from_secs(10);
/// How often, and after what pause, a switched-off module is taken off the log again while the ledger is busy.
const RELEASE_TRIES: u32 = 100;
const RELEASE_AGAIN: Duration = Duration::from_millis(50);

/// Every module there is: those that run, and what the others would run with.
pub(super) struct Modules {
    ctx: ModuleContext,
    groups: Groups,
    /// What actions pass, and what modules that propose or carry out are given.
    gate: Gate,
    /// Where evidence of runs is kept.
    runs: PathBuf,
    entries: Vec<&'static Entry>,
    stages: Stages,
    /// What modules show or take through the server, once there is one.
    served: OnceLock<Served>,
    /// Where alerts that were set aside go; it is no module of its own.
    pipeline: OnceLock<Handle<Pipeline>>,
    state: Mutex<State>,
}

/// What modules show or take through the server.
pub(super) struct Served {
    /// The live feed, which `ui.websocket` starts.
    pub(super) live: Live,
    /// The page, which `ui.dashboard` opens.
    pub(super) dashboard: Dashboard,
    /// Whose pings are taken.
    pub(super) pings: Pings,
    /// What `enricher.silence` goes by.
    pub(super) silencing: Silencing,
}

#[derive(Default)]
struct State {
    settings: BTreeMap<ModuleId, ModuleSettings>,
    running: BTreeMap<ModuleId, Box<dyn Module>>,
}

impl Modules {
    /// Nothing runs yet.
    pub(super) fn new(
        ctx: ModuleContext,
        groups: Groups,
        gate: Gate,
        runs: PathBuf,
        entries: Vec<&'static Entry>,
        stages: Stages,
        settings: BTreeMap<ModuleId, ModuleSettings>,
    ) -> Modules {
        Modules {
            ctx,
            groups,
            gate,
            runs,
            entries,
            stages,
            served: OnceLock::new(),
            pipeline: OnceLock::new(),
            state: Mutex::new(State { settings, running: BTreeMap::new() }),
        }
    }

    /// Names what modules show or take through the server.
    pub(super) async fn serve(&self, served: Served) {
        // there is one server, so this is called once
        drop(self.served.set(served));
        self.tell_server(&*self.state.lock().await);
    }

    /// The server goes by what is configured now.
    fn tell_server(&self, state: &State) {
        self.take_pings(state);
        let Some(Served { silencing, .. }) = self.served.get() else { return };
        let settings = state.settings.get(&SILENCE).filter(|settings| settings.enabled && self.has(SILENCE.as_str()));
        silencing.know(settings.and_then(|settings| serde_json::from_value(settings.config.clone()).ok()));
    }

    /// Pings are taken for the heartbeats that are watched now. A detector that was given up finds them when it is back.
    fn take_pings(&self, state: &State) {
        let Some(Served { pings, .. }) = self.served.get() else { return };
        let settings = state.settings.get(&heartbeat::ID).filter(|settings| settings.enabled && self.has(heartbeat::ID.as_str()));
        let config = settings.and_then(|settings| serde_json::from_value(settings.config.clone()).ok());
        pings.know(config.as_ref());
    }

    /// Names the consumer of alerts, so that its dead letters find it.
    pub(super) fn retry_alerts_with(&self, pipeline: Handle<Pipeline>) {
        // there is one pipeline, so this is called once
        drop(self.pipeline.set(pipeline));
    }

    /// Has `module` try one of its dead letters again.
    pub(super) async fn requeue(&self, module: &str, letter: DeadLetterId) -> Retried {
        if module == opspilot_enrichers::pipeline::ID.as_str() {
            let Some(pipeline) = self.pipeline.get() else { return Retried::Waiting };
            return match pipeline.ask(Requeue(letter), RETRY_DEADLINE).await {
                Ok(Ok(())) => Retried::Processed,
                Ok(Err(RequeueError::Unavailable)) | Err(_) => Retried::Waiting,
                Ok(Err(error)) => Retried::Failed(error.to_string()),
            };
        }
        let trying = {
            let state = self.state.lock().await;
            state.running.iter().find(|(id, _)| id.as_str() == module).map(|(_, running)| running.requeue(letter))
        };
        match trying {
            None => Retried::Waiting,
            Some(trying) => match trying.await {
                Ok(()) => Retried::Processed,
                Err(ModuleError::Unavailable) => Retried::Waiting,
                Err(error) => Retried::Failed(error.to_string()),
            },
        }
    }

    /// Has an incident explained again.
    pub(super) async fn explain(&self, incident: IncidentId, by: Actor) -> Result<(), ControlError> {
        let asked = {
            let state = self.state.lock().await;
            let explainer = state.running.get(&ai_summary::ID).and_then(|module| module.as_any().downcast_ref::<AiSummary>());
            explainer.map(|explainer| explainer.explain(incident, by))
        };
        let Some(asked) = asked else {
            return Err(ControlError::Unavailable(format!("{} does not run, and nothing else explains incidents", ai_summary::ID)));
        };
        asked.await.map_err(|error| match error {
            ExplainError::NotFound(what) => ControlError::NotFound(what),
            ExplainError::Unavailable(why) => ControlError::Unavailable(why),
        })
    }

    /// Where the dependency graph is shown and changed, while its module runs.
    pub(super) async fn topology(&self) -> Option<TopologyDesk> {
        let state = self.state.lock().await;
        let running = state.running.get(&topology::ID)?;
        running.as_any().downcast_ref::<Topology>().map(Topology::desk)
    }

    /// Sends a test message through a channel of `notifier.channels`; says what became of it.
    pub(super) async fn test_channel(&self, channel: &str, by: Actor) -> Result<Result<(), String>, ControlError> {
        let testing = {
            let state = self.state.lock().await;
            let running = state.running.get(&opspilot_notifiers::channels::ID);
            let channels = running.and_then(|running| running.as_any().downcast_ref::<opspilot_notifiers::channels::Channels>());
            channels.and_then(|channels| channels.test(channel, by))
        };
        let testing = testing.ok_or_else(|| ControlError::NoSuchChannel(channel.to_owned()))?;
        testing.await.map_err(|error| ControlError::Unavailable(format!("it cannot be put on record: {error}")))
    }

    /// What actions pass.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Starts what is enabled of one category. A module that does not start is shown as failed; the others go on.
    pub(super) async fn start_category(&self, category: &str) {
        let mut state = self.state.lock().await;
        for entry in self.entries.iter().filter(|entry| entry.id.category() == category) {
            let Some(settings) = state.settings.get(&entry.id).cloned() else { continue };
            if !settings.enabled {
                self.switched_off(entry.id, "switched off by the configuration").await;
                continue;
            }
            if let Err(why) = self.start(&mut state, entry, settings.config) {
                error!(self.ctx.log, "a module did not start"; "module" => entry.id.as_str(), "reason" => why.as_str());
            }
        }
    }

    /// Stops what runs of one category, the last started first.
    pub(super) async fn stop_category(&self, category: &str) {
        let mut state = self.state.lock().await;
        for entry in self.entries.iter().rev().filter(|entry| entry.id.category() == category) {
            self.stop(&mut state, entry.id).await;
        }
    }

    fn start(&self, state: &mut State, entry: &'static Entry, config: serde_json::Value) -> Result<(), String> {
        self.ctx.health.enabled(entry.id);
        let ctx = ModuleContext { supervisor: self.groups.of(entry.id).clone(), ..self.ctx.clone() };
        let started = match self.served.get() {
            Some(Served { live, .. }) if entry.id == live::ID => serde_json::from_value(config)
                .map_err(|error| StartError::Failed(error.to_string()))
                .and_then(|config| live.start(&ctx.for_module(entry.id), config)),
            Some(Served { dashboard, .. }) if entry.id == dashboard::ID => Ok(dashboard.open()),
            _ if entry.id == safe::ID => safe::start(&ctx.for_module(entry.id), &self.gate, self.runs.clone(), config),
            _ => (entry.start)(&ctx, config),
        };
        match started {
            Ok(module) => {
                self.stages.plug(&*module);
                if let Some(explainer) = module.as_any().downcast_ref::<AiSummary>() {
                    let gate = self.gate.clone();
                    explainer.suggest_from(move || offered(&gate));
                }
                state.running.insert(entry.id, module);
                self.ctx.health.present(entry.id);
                Ok(())
            }
            Err(error) => {
                let why = match error {
                    StartError::Config(problems) => {
                        let said: Vec<String> = problems.iter().map(|problem| format!("{} {}", problem.pointer, problem.message)).collect();
                        said.join("; ")
                    }
                    StartError::Failed(why) => why,
                };
                self.ctx.health.failed(entry.id, &why);
                Err(why)
            }
        }
    }

    async fn stop(&self, state: &mut State, id: ModuleId) {
        self.stages.unplug(id);
        if let Some(module) = state.running.remove(&id) {
            module.stop().await;
        }
    }

    /// Shows a module as disabled, and lets retention pass the place where it stopped reading.
    async fn switched_off(&self, id: ModuleId, why: &str) {
        self.ctx.health.disabled(id, why);
        // in line behind the last commits of the module: one that came later would make it a reader again
        let release = || self.ctx.ledger.write(Priority::Bulk, move |tx| tx.unfollow(id.as_str()));
        let mut released = release().await;
        for _ in 0..RELEASE_TRIES {
            if !matches!(released, Err(LedgerError::Busy)) {
                break;
            }
            tokio::time::sleep(RELEASE_AGAIN).await;
            released = release().await;
        }
        if let Err(error) = released {
            error!(self.ctx.log, "retention still waits for a module that is switched off"; "module" => id.as_str(), "error" => %error);
        }
    }

    fn entry(&self, id: &str) -> Option<&'static Entry> {
        self.entries.iter().copied().find(|entry| entry.id.as_str() == id)
    }

    /// Whether there is such a module here.
    pub(super) fn has(&self, id: &str) -> bool {
        self.entry(id).is_some()
    }

    /// Restarts, enables or disables one module, on record before it happens.
    pub(super) async fn switch(&self, id: &str, to: Switch, by: Actor) -> Result<ModuleId, ControlError> {
        let entry = self.entry(id).ok_or_else(|| ControlError::NoSuchModule(id.to_owned()))?;
        let mut state = self.state.lock().await;
        let settings = state.settings.get(&entry.id).cloned().ok_or_else(|| ControlError::NoSuchModule(id.to_owned()))?;
        let runs = state.running.contains_key(&entry.id);
        match to {
            Switch::Restart if !runs && !settings.enabled => {
                return Err(ControlError::Conflict(format!("{id} is disabled; enable it instead")));
            }
            _ => {}
        }
        self.recorded(entry.id, to, by).await?;
        info!(self.ctx.log, "a module is switched"; "module" => entry.id.as_str(), "to" => ?to);
        if to != Switch::Enable
            || !runs
            || self.ctx.health.status(entry.id).is_some_and(|status| status == opspilot_kernel::module::ModuleStatus::Failed)
        {
            self.stop(&mut state, entry.id).await;
        }
        let enabled = to != Switch::Disable;
        if let Some(own) = state.settings.get_mut(&entry.id) {
            own.enabled = enabled;
        }
        self.tell_server(&state);
        if !enabled {
            self.switched_off(entry.id, "switched off by an admin").await;
        } else if !state.running.contains_key(&entry.id) {
            self.start(&mut state, entry, settings.config).map_err(ControlError::Unavailable)?;
        }
        Ok(entry.id)
    }

    async fn recorded(&self, id: ModuleId, to: Switch, by: Actor) -> Result<(), ControlError> {
        let record = self.ctx.ledger.write(Priority::Control, move |tx| match to {
            Switch::Restart => tx.module_restarted(&by, id.as_str(), "asked for"),
            Switch::Enable => tx.module_switched(&by, id.as_str(), true),
            Switch::Disable => tx.module_switched(&by, id.as_str(), false),
        });
        record.await.map_err(|error| ControlError::Unavailable(error.to_string()))
    }

    /// The modules whose settings would change.
    pub(super) async fn changed(
        &self,
        wanted: &BTreeMap<ModuleId, ModuleSettings>,
        before: &BTreeMap<ModuleId, ModuleSettings>,
    ) -> Vec<ModuleId> {
        // against the last configuration, not against what runs: what an admin switched stays until the file says otherwise
        wanted.iter().filter(|(id, settings)| before.get(id) != Some(settings)).map(|(id, _)| *id).collect()
    }

    /// Gives the modules `ids` what `wanted` says; if one of them does not take it, all get back what they had.
    pub(super) async fn apply(&self, ids: &[ModuleId], wanted: &BTreeMap<ModuleId, ModuleSettings>) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let mut done: Vec<(ModuleId, ModuleSettings)> = Vec::new();
        for id in ids {
            let (Some(entry), Some(new), Some(old)) = (self.entry(id.as_str()), wanted.get(id), state.settings.get(id).cloned()) else {
                continue;
            };
            done.push((*id, old.clone()));
            if let Err(why) = self.change(&mut state, entry, &old, new).await {
                for (id, old) in done.into_iter().rev() {
                    let (Some(entry), Some(new)) = (self.entry(id.as_str()), state.settings.get(&id).cloned()) else { continue };
                    if let Err(why) = self.change(&mut state, entry, &new, &old).await {
                        error!(self.ctx.log, "a module did not take its old configuration back"; "module" => id.as_str(), "reason" => why);
                    }
                }
                self.tell_server(&state);
                return Err(format!("{id}: {why}"));
            }
        }
        self.tell_server(&state);
        Ok(())
    }

    async fn change(&self, state: &mut State, entry: &'static Entry, old: &ModuleSettings, new: &ModuleSettings) -> Result<(), String> {
        state.settings.insert(entry.id, new.clone());
        if !new.enabled {
            self.stop(state, entry.id).await;
            self.switched_off(entry.id, "switched off by the configuration").await;
            return Ok(());
        }
        if let Some(module) = state.running.get(&entry.id) {
            if old.config == new.config {
                return Ok(());
            }
            match module.reconfigure(new.config.clone()).await {
                Ok(Applied::InPlace) => return Ok(()),
                Ok(Applied::NeedsRestart) => self.stop(state, entry.id).await,
                Err(error) => return Err(error.to_string()),
            }
        }
        self.start(state, entry, new.config.clone())
    }
}

/// The actions that an explanation may suggest: those that can be proposed just now.
fn offered(gate: &Gate) -> Vec<Offered> {
    let Some(offer) = gate.offer() else { return Vec::new() };
    let actions = offer.catalogue.iter().map(|action| {
        let template = action.template();
        Offered {
            id: template.id.clone(),
            title: template.title.clone(),
            description: template.description.clone().unwrap_or_default(),
            params: template.params.keys().map(|name| (name.clone(), false)).collect(),
        }
    });
    actions.collect()
}

/// Shared by everything that may switch modules.
pub(super) type SharedModules = Arc<Modules>;
