//! The table of keys, in memory: which incidents that are not resolved have what in common with what may still come.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{ids::IncidentId, time::Timestamp};
use opspilot_ledger::pipeline::{BoardRequest, HeldKey, KeyHolder, Merge};

/// Who has which key.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Keyring {
    holders: BTreeMap<String, Vec<KeyHolder>>,
    /// The keys of each incident, and whether enough incidents with it are a storm.
    of: BTreeMap<IncidentId, BTreeMap<String, bool>>,
}

impl Keyring {
    pub(crate) fn hold(&mut self, incident: &IncidentId, opened_at: Timestamp, held: HeldKey) {
        self.of.entry(incident.clone()).or_default().insert(held.key.clone(), held.counts);
        let list = self.holders.entry(held.key).or_default();
        match list.iter_mut().find(|holder| holder.incident == *incident) {
            Some(holder) => {
                holder.at = holder.at.max(held.at);
                holder.storm |= held.storm;
            }
            None => list.push(KeyHolder { incident: incident.clone(), at: held.at, opened_at, storm: held.storm }),
        }
        list.sort_by(|a, b| (a.opened_at, &a.incident).cmp(&(b.opened_at, &b.incident)));
    }

    /// The incident is over.
    pub(crate) fn release(&mut self, incident: &IncidentId) {
        for key in self.of.remove(incident).into_iter().flat_map(BTreeMap::into_keys) {
            if let Some(list) = self.holders.get_mut(&key) {
                list.retain(|holder| holder.incident != *incident);
                if list.is_empty() {
                    self.holders.remove(&key);
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, merge: &Merge, opened_at: Timestamp) {
        let moved: Vec<HeldKey> = self
            .of
            .get(&merge.from)
            .into_iter()
            .flatten()
            .filter_map(|(key, counts)| {
                let holder = self.holders.get(key)?.iter().find(|holder| holder.incident == merge.from)?;
                Some(HeldKey { key: key.clone(), at: holder.at, counts: *counts, storm: holder.storm })
            })
            .collect();
        self.release(&merge.from);
        for held in moved {
            self.hold(&merge.into, opened_at, held);
        }
    }

    /// What the board shows of it; `looked_at` are the incidents whose time to be looked at has come.
    pub(crate) fn read(&self, request: &BoardRequest, looked_at: &BTreeSet<IncidentId>) -> BTreeMap<String, Vec<KeyHolder>> {
        let mut shown: BTreeMap<String, Vec<KeyHolder>> = BTreeMap::new();
        let mut show = |key: &String, wanted: &dyn Fn(&KeyHolder) -> bool| {
            let holders: Vec<KeyHolder> = self.holders.get(key).into_iter().flatten().filter(|holder| wanted(holder)).cloned().collect();
            if !holders.is_empty() {
                shown.entry(key.clone()).or_insert(holders);
            }
        };
        for key in &request.keys {
            show(key, &|_| true);
        }
        for key in &request.storms {
            show(key, &|holder| holder.storm);
        }
        if let Some(since) = request.opened_since {
            let own = looked_at.iter().filter_map(|id| self.of.get(id)).flatten().filter(|(_, counts)| **counts);
            for (key, _) in own {
                show(key, &|holder| holder.storm || holder.opened_at >= since);
            }
        }
        shown
    }
}
