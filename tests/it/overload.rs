//! More than it can take: it says so, keeps what it took, and is well afterwards.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use crate::common::{Home, Service, long};

const CONFIG: &str = "\
limits: {requests: {read: 10000000, write: 10000000}}
ledger: {queue: 2}
modules:
  connector.metrics: {enabled: false}
";
/// Requests that may be without an answer at a time: the test's own descriptors are bounded, too.
const OPEN: usize = 400;

/// What became of one request.
#[derive(Debug, PartialEq)]
enum Fate {
    Accepted,
    Shed,
}

/// Sends one line and looks at the answer.
fn send(service: &Service, name: String) -> impl Future<Output = (String, Fate)> + use<> {
    let request = service.http.post(format!("{}/api/events", service.url)).bearer_auth(service.token.as_deref().unwrap());
    let request = request.json(&json!({ "source": "load", "message": name }));
    async move {
        let answer = request.send().await.unwrap();
        let waits = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match answer.status().as_u16() {
            202 => (name, Fate::Accepted),
            status @ (429 | 503) => {
                assert!(waits.is_some_and(|seconds| seconds > 0), "{status} without Retry-After");
                (name, Fate::Shed)
            }
            status => panic!("{status}"),
        }
    }
}

#[tokio::test]
async fn s12_ten_times_the_load_is_shed_and_what_was_acknowledged_is_stored() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    // what it can do: as many at a time as it has room for
    let (started, mut alone) = (tokio::time::Instant::now(), 0_u32);
    let mut acknowledged = BTreeSet::new();
    while started.elapsed() < Duration::from_secs(1) {
        let pair = [send(&service, format!("a {alone}")), send(&service, format!("b {alone}"))];
        for (name, fate) in futures_util::future::join_all(pair).await {
            if fate == Fate::Accepted {
                acknowledged.insert(name);
            }
        }
        alone += 1;
    }
    let capacity = acknowledged.len();
    assert!(capacity > 0);
    // ten times as many, sent when they are due, whether or not the others were answered
    let mut shed = BTreeSet::new();
    let mut curve = Vec::new();
    let gap = Duration::from_secs(1) / u32::try_from(capacity * 10).unwrap();
    for slice in 0..5 {
        let (mut accepted, mut refused, mut offered) = (0, 0, 0_u32);
        let mut open = JoinSet::new();
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            let due = u32::try_from(begun.elapsed().as_nanos() / gap.as_nanos().max(1)).unwrap();
            while offered < due && open.len() < OPEN {
                open.spawn(send(&service, format!("slice {slice} {offered}")));
                offered += 1;
            }
            let ended = tokio::time::timeout(Duration::from_millis(1), open.join_next()).await;
            let mut ended = ended.ok().flatten();
            while let Some(answer) = ended {
                keep(answer.unwrap(), &mut acknowledged, &mut shed, &mut accepted, &mut refused);
                ended = open.try_join_next();
            }
        }
        while let Some(answer) = open.join_next().await {
            keep(answer.unwrap(), &mut acknowledged, &mut shed, &mut accepted, &mut refused);
        }
        curve.push((offered, accepted, refused));
    }
    println!("alone {capacity}/s; then, a second each:");
    for (offered, accepted, refused) in &curve {
        println!("offered {offered:>6} accepted {accepted:>6} shed {refused:>6} ({:>3} % of alone)", accepted * 100 / capacity);
    }
    assert!(curve.iter().all(|(_, accepted, _)| *accepted > 0), "it collapsed");
    if long() {
        // on a machine of its own; beside other tests the clients take from the service what it had when it was alone
        let (best, slices) = (curve.iter().map(|(_, accepted, _)| *accepted).max().unwrap_or(0).max(capacity), curve.len());
        let accepted: usize = curve.iter().map(|(_, accepted, _)| accepted).sum();
        assert!(accepted * 100 >= best * slices * 90, "goodput fell below nine tenths of the best: {curve:?}, alone {capacity}");
    }
    assert!(curve.iter().all(|(_, _, refused)| *refused > 0), "it was not too much");
    service.healthy().await;
    service.logs("load", &["after all of it"]).await;
    acknowledged.insert("after all of it".to_owned());
    let stored: Vec<String> = service.messages().await;
    let all = stored.len();
    let stored: BTreeSet<String> = stored.into_iter().collect();
    assert_eq!(stored.len(), all, "nothing is stored twice");
    assert_eq!(acknowledged.difference(&stored).collect::<Vec<_>>(), Vec::<&String>::new(), "acknowledged, and not there");
    assert_eq!(shed.intersection(&stored).collect::<Vec<_>>(), Vec::<&String>::new(), "refused, and there all the same");
    service.stop().await;
}

fn keep(
    (name, fate): (String, Fate),
    acknowledged: &mut BTreeSet<String>,
    shed: &mut BTreeSet<String>,
    accepted: &mut usize,
    refused: &mut usize,
) {
    match fate {
        Fate::Accepted => {
            *accepted += 1;
            acknowledged.insert(name);
        }
        Fate::Shed => {
            *refused += 1;
            shed.insert(name);
        }
    }
}
