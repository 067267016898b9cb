//! Groups: who else goes down when a core child fails, and when a group cannot go on.
//!
//! ```text
//! child fails ─▶ its group restarts it, and by its strategy others with it      (the group's intensity)
//!                 └─ too often ─▶ the root restarts the whole group             (the root's intensity)
//!                                  └─ too often ─▶ the process ends in order
//! ```
//!
//! Only core children count here: a module is restarted and given up by itself, and takes nobody along. An escalation
//! forgets nothing: until old restarts leave the group's window, each further failure goes straight to the root. So a
//! child that never works again is restarted exactly `group + root` times before the process ends.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{cell::Cell, policy::Budget, spec::Intensity};

/// Who is restarted when a core child of a group fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The child alone: its siblings do not depend on it.
    OneForOne,
    /// The child and all that were started after it, each as soon as those before it run: they stand on it.
    RestForOne,
}

/// How a group of children is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its name in logs.
    pub name: &'static str,
    /// Who is restarted with a core child.
    pub strategy: Strategy,
    /// How many failures of its core children, all together, are too many for it.
    pub intensity: Intensity,
}

impl GroupSpec {
    /// The root: every group stands alone, 3 restarts of a group in 300 s.
    pub const ROOT: GroupSpec = GroupSpec { name: "root", strategy: Strategy::OneForOne, intensity: Intensity::PROCESS };

    /// What keeps the ledger: each part stands on those before it.
    pub const STORAGE: GroupSpec = GroupSpec::rest_for_one("storage", Intensity { restarts: 2, within: Duration::from_secs(60) });
    /// What makes alerts of signals and incidents of alerts.
    pub const PIPELINE: GroupSpec = GroupSpec::one_for_one("pipeline", Intensity::DEFAULT);
    /// What asks for, carries out and verifies actions.
    pub const ACTIONS: GroupSpec = GroupSpec::one_for_one("actions", Intensity::DEFAULT);
    /// What talks to the outside.
    pub const EDGE: GroupSpec = GroupSpec::one_for_one("edge", Intensity::DEFAULT);

    /// The most restarts there are before the process ends, of a child that fails again as soon as it is started:
    /// those its group grants, and those of the whole group that the root grants.
    pub const fn restarts_at_most(&self) -> u32 {
        self.intensity.restarts + GroupSpec::ROOT.intensity.restarts
    }

    /// A group whose children do not depend on each other.
    pub const fn one_for_one(name: &'static str, intensity: Intensity) -> GroupSpec {
        GroupSpec { name, strategy: Strategy::OneForOne, intensity }
    }

    /// A group whose children stand on those started before them.
    pub const fn rest_for_one(name: &'static str, intensity: Intensity) -> GroupSpec {
        GroupSpec { name, strategy: Strategy::RestForOne, intensity }
    }
}

/// What a group does about a failure.
pub(crate) enum Answer {
    /// The child is restarted, and these with it, in this order.
    Restart(Vec<Arc<Cell>>),
    /// The group could not go on, so the root restarts all of it: the child and these, in this order.
    Escalated(Vec<Arc<Cell>>),
    /// Nobody can go on.
    GiveUp,
}

pub(crate) struct Group {
    spec: GroupSpec,
    parent: Option<Arc<Group>>,
    state: Mutex<State>,
    /// The children, by number, that others wait for: a restart goes from the lowest to the highest.
    line: watch::Sender<BTreeSet<u64>>,
}

struct State {
    budget: Budget,
    /// In order of their start.
    members: Vec<(u64, Weak<Cell>)>,
}

impl Group {
    pub(crate) fn new(spec: GroupSpec, parent: Option<Arc<Group>>) -> Arc<Group> {
        let state = State { budget: Budget::new(spec.intensity), members: Vec::new() };
        Arc::new(Group { spec, parent, state: Mutex::new(state), line: watch::Sender::new(BTreeSet::new()) })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Takes in a child; where children stand on each other it starts when those before it run.
    pub(crate) fn join(&self, cell: &Arc<Cell>) {
        let mut state = self.state.lock();
        state.members.retain(|(_, member)| member.upgrade().is_some_and(|member| !member.standing().phase.is_final()));
        state.members.push((cell.number(), Arc::downgrade(cell)));
        drop(state);
        self.line_up([cell.number()]);
    }

    /// A core child failed.
    pub(crate) fn failed(&self, number: u64, now: Duration) -> Answer {
        let mut state = self.state.lock();
        let within = state.budget.spend(number, now);
        if !within && !self.parent.as_ref().is_some_and(|parent| parent.state.lock().budget.spend(0, now)) {
            return Answer::GiveUp;
        }
        let members = state.members.iter().filter_map(|(_, member)| member.upgrade());
        let others = members.filter(|member| member.number() != number && !member.standing().phase.is_final());
        let with_it = others.filter(|member| match self.spec.strategy {
            Strategy::OneForOne => !within,
            Strategy::RestForOne => !within || member.number() > number,
        });
        let with_it: Vec<_> = with_it.collect();
        drop(state);
        // before anybody is told: whoever is quick finds that it is not yet its turn
        self.line_up(with_it.iter().map(|member| member.number()).chain([number]));
        if within { Answer::Restart(with_it) } else { Answer::Escalated(with_it) }
    }

    fn line_up(&self, numbers: impl IntoIterator<Item = u64>) {
        if self.spec.strategy == Strategy::RestForOne {
            self.line.send_modify(|line| line.extend(numbers));
        }
    }

    /// Nobody waits for this child any longer: it runs, or will not for a while.
    pub(crate) fn leave_line(&self, number: u64) {
        self.line.send_if_modified(|line| line.remove(&number));
    }

    /// Waits until every child before this one, of those that are being restarted, runs.
    pub(crate) async fn turn(&self, number: u64) {
        let mut line = self.line.subscribe();
        // an error would mean that the group is gone, and it is borrowed here
        drop(line.wait_for(|line| !line.contains(&number) || line.first() == Some(&number)).await);
    }

    pub(crate) fn forgive(&self, number: u64) {
        self.state.lock().budget.forgive(number);
    }
}
