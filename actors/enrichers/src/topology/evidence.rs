//! Which edges a signal shows, by its labels.

use std::collections::HashSet;

use opspilot_kernel::{
    signal::SignalRef,
    topology::{ComponentLabels, ComponentName},
};

use super::config::{Config, LabelPair};

/// What exporters write where nothing is to be named.
const NOBODY: [&str; 3] = ["<none>", "unknown", "-"];
/// A label may name several, divided by commas; at most so many are read.
const LISTED: usize = 8;

/// An edge: the first depends on the second.
pub(super) type Pair = (ComponentName, ComponentName);

/// Reads signals.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Labels without which a signal shows no edge: most have none of them and cost one look at each label's name.
    telling: HashSet<String>,
    peers: HashSet<String>,
    calls: Vec<LabelPair>,
    owners: Vec<LabelPair>,
    labels: ComponentLabels,
}

impl Evidence {
    pub(super) fn new(config: &Config) -> Evidence {
        let ends = config.calls.iter().chain(&config.owners).map(|pair| pair.to.clone());
        Evidence {
            telling: config.peers.iter().cloned().chain(ends).collect(),
            peers: config.peers.iter().cloned().collect(),
            calls: config.calls.clone(),
            owners: config.owners.clone(),
            labels: ComponentLabels::new(config.component_labels.clone()),
        }
    }

    /// Tells `found` of every edge that the signal shows.
    pub(super) fn of(&self, signal: &SignalRef<'_>, mut found: impl FnMut(Pair)) {
        if !signal.labels.iter().any(|(label, _)| self.telling.contains(label)) {
            return;
        }
        let pair = |labels: &LabelPair| Some((component(signal.labels.get(&labels.from)?)?, component(signal.labels.get(&labels.to)?)?));
        let mut tell = |(from, to): Pair| {
            if from != to {
                found((from, to));
            }
        };
        self.owners.iter().filter_map(pair).for_each(&mut tell);
        if let Some(call) = self.calls.iter().find_map(pair) {
            return tell(call);
        }
        let peers: Vec<ComponentName> =
            signal.labels.iter().filter(|(label, _)| self.peers.contains(*label)).flat_map(|(_, value)| listed(value)).collect();
        if peers.is_empty() {
            return;
        }
        // whoever names a peer speaks for itself: without a label that says more, the source is the component
        let own = self.labels.of(|label| signal.labels.get(label)).or_else(|| component(signal.source));
        if let Some(own) = own {
            peers.into_iter().for_each(|peer| tell((own.clone(), peer)));
        }
    }
}

fn component(value: &str) -> Option<ComponentName> {
    let name = value.trim();
    if NOBODY.contains(&name) { None } else { ComponentName::new(name).ok() }
}

fn listed(value: &str) -> impl Iterator<Item = ComponentName> {
    value.split(',').take(LISTED).filter_map(|one| component(host(one.trim())))
}

/// Of an address the host, so that a component is one however it is reached: without a scheme and what follows the host
/// of a URL, and without a port. Other names stay as they are.
fn host(address: &str) -> &str {
    let host = match address.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or(rest),
        None => address,
    };
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{codec::Labels, time::Timestamp};

    use super::*;

    fn shown(source: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        let signal = SignalRef { labels: Labels::Pairs(labels), ..SignalRef::log(Timestamp::ZERO, source, "hello") };
        Evidence::new(&Config::default()).of(&signal, |(from, to)| found.push(format!("{from} > {to}")));
        found
    }

    #[test]
    fn a_peer_is_what_the_signals_own_component_depends_on() {
        assert_eq!(shown("web", &[("peer.service", "api")]), ["web > api"]);
        assert_eq!(shown("otel", &[("service", "web"), ("peer_service", "api"), ("db", "orders")]), ["web > api", "web > orders"]);
        assert_eq!(shown("nginx", &[("upstream", "http://10.0.0.7:8080/x, 10.0.0.8:80")]), ["nginx > 10.0.0.7", "nginx > 10.0.0.8"]);
        assert_eq!(shown("web", &[("server_address", "fe80::1")]), ["web > fe80::1"]);
        assert_eq!(shown("web", &[("depends_on", "team/api:v2")]), ["web > team/api:v2"]);
    }

    #[test]
    fn a_call_names_both_ends_and_is_worth_more_than_a_peer() {
        assert_eq!(shown("api", &[("caller", "web"), ("callee", "api"), ("operation", "/buy")]), ["web > api"]);
        let mesh = [("app", "reviews"), ("source_app", "web"), ("destination_app", "reviews"), ("destination_service", "reviews.default")];
        assert_eq!(shown("istio", &mesh), ["web > reviews"]);
        assert_eq!(shown("api", &[("caller", "web")]), [""; 0]);
    }

    #[test]
    fn a_pod_depends_on_its_owners_and_its_node() {
        let labels = [("pod", "web-7f-x"), ("replicaset", "web-7f"), ("deployment", "web"), ("node", "n1")];
        assert_eq!(shown("kube", &labels), ["web-7f-x > web-7f", "web-7f-x > web", "web-7f-x > n1", "web-7f > web"]);
        assert_eq!(shown("kube", &[("pod", "solo"), ("owner_kind", "<none>"), ("owner_name", "<none>")]), [""; 0]);
    }

    #[test]
    fn what_names_nobody_or_itself_shows_nothing() {
        assert_eq!(shown("web", &[("peer_service", "web")]), [""; 0]);
        assert_eq!(shown("web", &[("peer_service", ""), ("db", "unknown"), ("upstream", "a\tb")]), [""; 0]);
        assert_eq!(shown("web", &[("service", "web"), ("host", "h1")]), [""; 0]);
    }
}
