//! `topology`, `topology_component`, `topology_edge`: the part of the dependency graph that people gave through the API.
//!
//! | code | meaning |
//! |---|---|
//! | `TOP01I` | somebody replaced it; the body counts what there is now and names what came and what went |

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use opspilot_kernel::{
    principal::Actor,
    topology::{About, ComponentName},
};
use serde_json::{Value, json};

use super::audit::{AuditEntry, Object};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{topology, topology_component, topology_edge},
    tx::{Tx, loaded, stored},
};

/// How many edges that came or went an audit entry names; beyond that it counts them.
const NAMED: usize = 50;

/// What people said through the API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatedTopology {
    /// How often it was replaced.
    pub revision: u64,
    /// What they said about components.
    pub components: BTreeMap<ComponentName, About>,
    /// The first of each pair depends on the second.
    pub edges: BTreeSet<(ComponentName, ComponentName)>,
}

fn name(text: &str) -> Result<ComponentName, LedgerError> {
    ComponentName::new(text).map_err(|error| LedgerError::Damaged(format!("topology: {error}")))
}

fn load(conn: &mut SqliteConnection) -> Result<StatedTopology, LedgerError> {
    let revision: i64 = topology::table.find(1).select(topology::revision).first(conn)?;
    let components: Vec<(String, Option<String>, Option<String>)> = topology_component::table.load(conn)?;
    let edges: Vec<(String, String)> = topology_edge::table.load(conn)?;
    let about = |(text, title, owner): (String, _, _)| Ok((name(&text)?, About { title, owner }));
    let edge = |(dependent, dependency): (String, String)| Ok((name(&dependent)?, name(&dependency)?));
    Ok(StatedTopology {
        revision: loaded(revision)?,
        components: components.into_iter().map(about).collect::<Result<_, LedgerError>>()?,
        edges: edges.into_iter().map(edge).collect::<Result<_, LedgerError>>()?,
    })
}

/// The first of them by name, and how many there are.
fn named<'a>(edges: impl Iterator<Item = &'a (ComponentName, ComponentName)> + Clone) -> Value {
    let first: Vec<[&str; 2]> = edges.clone().take(NAMED).map(|(from, to)| [from.as_str(), to.as_str()]).collect();
    json!({ "count": edges.count(), "first": first })
}

impl Tx<'_> {
    /// Replaces what people said by `components` and `edges`, if it is at the revision `expected` or that does not matter.
    /// Gives its revision, which is the old one if nothing changes.
    pub fn topology_replace(
        &mut self,
        actor: &Actor,
        expected: Option<u64>,
        components: &BTreeMap<ComponentName, About>,
        edges: &BTreeSet<(ComponentName, ComponentName)>,
    ) -> Result<u64, LedgerError> {
        let before = load(self.conn)?;
        if let Some(expected) = expected.filter(|expected| *expected != before.revision) {
            let detail = format!("the topology is at revision {} and not at {expected}: somebody replaced it meanwhile", before.revision);
            return Err(LedgerError::Conflict(detail));
        }
        if before.components == *components && before.edges == *edges {
            return Ok(before.revision);
        }
        for (dependent, dependency) in before.edges.difference(edges) {
            diesel::delete(topology_edge::table.find((dependent.as_str(), dependency.as_str()))).execute(self.conn)?;
        }
        for (dependent, dependency) in edges.difference(&before.edges) {
            use topology_edge::dsl as t;
            let row = (t::dependent.eq(dependent.as_str()), t::dependency.eq(dependency.as_str()));
            diesel::insert_into(t::topology_edge).values(row).execute(self.conn)?;
        }
        for gone in before.components.keys().filter(|name| !components.contains_key(*name)) {
            diesel::delete(topology_component::table.find(gone.as_str())).execute(self.conn)?;
        }
        for (name, about) in components.iter().filter(|(name, about)| before.components.get(*name) != Some(*about)) {
            use topology_component::dsl as t;
            let row = (t::name.eq(name.as_str()), t::title.eq(&about.title), t::owner.eq(&about.owner));
            diesel::replace_into(t::topology_component).values(row).execute(self.conn)?;
        }
        let revision = before.revision.saturating_add(1);
        diesel::update(topology::table.find(1)).set(topology::revision.eq(stored(revision)?)).execute(self.conn)?;
        self.audit(AuditEntry {
            code: "TOP01I",
            actor: actor.clone(),
            object: Object::new("topology", ""),
            body: json!({
                "revision": revision,
                "components": components.len(),
                "edges": edges.len(),
                "added": named(edges.difference(&before.edges)),
                "removed": named(before.edges.difference(edges)),
            }),
            ..AuditEntry::default()
        })?;
        Ok(revision)
    }
}

impl Reader<'_> {
    /// What people said through the API.
    pub fn topology(&mut self) -> Result<StatedTopology, LedgerError> {
        load(self.conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuditFilter, Ledger, Options, Page, Priority};

    fn edge(from: &str, to: &str) -> (ComponentName, ComponentName) {
        (ComponentName::new(from).unwrap(), ComponentName::new(to).unwrap())
    }

    async fn replace(ledger: &Ledger, expected: Option<u64>, owner: &str, edges: &[(&str, &str)]) -> Result<u64, LedgerError> {
        let about = About { title: None, owner: Some(owner.to_owned()) };
        let components = BTreeMap::from([(ComponentName::new("db").unwrap(), about)]);
        let edges = edges.iter().map(|(from, to)| edge(from, to)).collect();
        ledger.write(Priority::Control, move |tx| tx.topology_replace(&Actor::System, expected, &components, &edges)).await
    }

    #[tokio::test]
    async fn it_is_replaced_as_a_whole_on_record_and_once_for_each_change() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Options::new(dir.path(), opspilot_kernel::clock::SystemClock::shared())).unwrap();
        assert_eq!(ledger.read(|reader| reader.topology()).await.unwrap(), StatedTopology::default());
        assert_eq!(replace(&ledger, None, "ada", &[("web", "api"), ("api", "db")]).await.unwrap(), 1);
        assert_eq!(replace(&ledger, None, "ada", &[("api", "db"), ("web", "api")]).await.unwrap(), 1, "nothing changes");
        assert_eq!(replace(&ledger, Some(1), "bob", &[("api", "db"), ("api", "queue")]).await.unwrap(), 2);
        assert!(matches!(replace(&ledger, Some(1), "eve", &[]).await, Err(LedgerError::Conflict(_))));
        let now = ledger.read(|reader| reader.topology()).await.unwrap();
        assert_eq!((now.revision, &now.edges), (2, &BTreeSet::from([edge("api", "db"), edge("api", "queue")])));
        assert_eq!(now.components["db"].owner.as_deref(), Some("bob"));
        let filter = AuditFilter { action: Some("TOP01I".to_owned()), ..AuditFilter::default() };
        let record = ledger.read(move |reader| reader.audit(&filter, &Page::first(10))).await.unwrap().items;
        assert_eq!(record.len(), 2);
        ledger.shut_down().await.unwrap();
    }
}
