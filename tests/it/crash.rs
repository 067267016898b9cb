//! `kill -9` at any moment: what was acknowledged is there, and the same alerts come out.

use std::{collections::BTreeSet, io::Write, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::{
    common::{Home, long, until},
    story::RULES,
};

/// How many kills: a few in the normal run, a thousand with `OPSPILOT_LONG=1`, or as many as `OPSPILOT_TEST_KILLS` says.
fn cycles() -> u64 {
    let asked = std::env::var("OPSPILOT_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if long() { 1_000 } else { 6 })
}

/// Line `number` as it is sent: each tenth says what a rule looks for.
fn line(number: u64) -> String {
    if number.is_multiple_of(10) { format!("payment failed for order {number}") } else { format!("line {number}") }
}

#[tokio::test]
async fn a1_kill_9_loses_nothing_that_was_acknowledged() {
    let seed = std::env::var("OPSPILOT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20260314);
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let home = Home::new(RULES);
    let journal = home.path("acknowledged");
    let mut under_way = 0_u64;
    let mut number = 0_u64;
    for _ in 0..cycles() {
        let service = home.start().await;
        let (http, url, token) = (service.http.clone(), service.url.clone(), service.token.clone().unwrap());
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&journal).unwrap();
        let first = number;
        let sender = tokio::spawn(async move {
            let mut number = first;
            loop {
                let events: Vec<_> = (0..10).map(|offset| json!({ "source": "shop", "message": line(number + offset) })).collect();
                match http.post(format!("{url}/api/events")).bearer_auth(&token).json(&events).send().await {
                    Ok(answer) if answer.status() == 202 => {
                        writeln!(file, "{number}").unwrap();
                        file.sync_data().unwrap();
                    }
                    // the service was gone already: nothing was under way
                    Err(error) if error.is_connect() => return (number + 10, false),
                    // sent, and not answered: whether it was stored is open
                    Err(_) => return (number + 10, true),
                    Ok(answer) => panic!("a service that lives answers with {}", answer.status()),
                }
                number += 10;
            }
        });
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..800))).await;
        service.kill();
        let (next, cut) = sender.await.unwrap();
        number = next;
        under_way += u64::from(cut);
    }
    assert!(under_way > 0, "no kill hit a request that was under way");
    let service = home.start().await;
    let mut stored: Vec<String> = service.messages().await;
    let all = stored.len();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), all, "nothing is stored twice");
    let stored: BTreeSet<String> = stored.into_iter().collect();
    let acknowledged: Vec<u64> = std::fs::read_to_string(&journal).unwrap_or_default().lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<u64> =
        acknowledged.iter().flat_map(|first| *first..*first + 10).filter(|number| !stored.contains(&line(*number))).collect();
    println!("cycles {} acknowledged {} lost {} cut {under_way}", cycles(), acknowledged.len() * 10, lost.len());
    assert!(lost.is_empty(), "lost {lost:?}");
    // effects once: each stored line that the rule is about is counted, and none twice
    let matches = u64::try_from(stored.iter().filter(|line| line.starts_with("payment failed")).count()).unwrap();
    assert!(matches > 0, "some lines concern a rule");
    let counted = async || {
        let incidents = service.incidents().await;
        let payments = incidents.iter().filter(|incident| incident["rule"] == "payment-failed");
        payments.filter_map(|incident| incident["occurrences"].as_u64()).sum::<u64>()
    };
    until("every match to be counted", async || (counted().await >= matches).then_some(())).await;
    assert_eq!(counted().await, matches, "counted once, whatever was killed on the way");
    service.stop().await;
}

/// What the incidents say, without what depends on when the machine did it.
async fn told(service: &crate::common::Service) -> BTreeSet<String> {
    let describe = |incident: &serde_json::Value| {
        format!("{} {} {} {} {}", incident["id"], incident["title"], incident["source"], incident["occurrences"], incident["status"])
    };
    service.incidents().await.iter().map(describe).collect()
}

#[tokio::test]
async fn the_same_signals_give_the_same_incidents_with_and_without_kills() {
    let batches: Vec<Vec<serde_json::Value>> = (0..30)
        .map(|batch| {
            let at = |offset: i64| {
                let at = opspilot_kernel::time::Timestamp::from_millis(1_780_000_000_000 + batch * 5000 + offset * 100);
                at.to_string()
            };
            (0..20)
                .map(|offset| match offset % 5 {
                    0 => json!({ "source": format!("shop-{}", batch % 7), "timestamp": at(offset), "message": format!("payment failed for order {batch}{offset}") }),
                    1 => json!({ "source": "host", "timestamp": at(offset), "name": "cpu_percent", "value": if batch % 10 > 4 { 95 } else { 20 } }),
                    _ => json!({ "source": "noise", "timestamp": at(offset), "message": format!("fine {batch} {offset}") }),
                })
                .collect()
        })
        .collect();
    let mut tales = Vec::new();
    for kills in [0, 3] {
        let home = Home::new(RULES);
        let mut service = home.start().await;
        let mut killed = 0;
        for (number, batch) in batches.iter().enumerate() {
            let (status, answer) = service.post("/api/events", json!(batch)).await;
            assert_eq!(status, 202, "{answer}");
            if kills > 0 && number % (batches.len() / (kills + 1)) == 5 {
                service.kill();
                killed += 1;
                service = home.start().await;
            }
        }
        // every match is counted in the end, whatever was killed on the way
        until("every match to be counted", async || {
            let incidents = service.incidents().await;
            let payments = incidents.iter().filter(|incident| incident["rule"] == "payment-failed");
            (payments.filter_map(|incident| incident["occurrences"].as_u64()).sum::<u64>() == 120 && incidents.len() == 8).then_some(())
        })
        .await;
        assert!(killed >= kills, "{killed} kills");
        tales.push(told(&service).await);
        service.stop().await;
    }
    assert_eq!(tales[0], tales[1]);
}
