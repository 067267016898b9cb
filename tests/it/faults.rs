//! Faults injected into the running binary, which only a build with the feature `failpoints` can:
//! `cargo test --features failpoints --test it faults`.

use serde_json::Value as Json;

use crate::{
    common::{Home, Service, until},
    story::RULES,
};

/// Parts that are routes and no actor: a panic in a handler of theirs is the request's own.
const ROUTES: [&str; 2] = ["ui.api", "ui.dashboard"];

/// The parts that take a panic: modules, and the core under them.
async fn parts(service: &Service) -> Vec<String> {
    let health = service.get("/api/health").await;
    let modules = health["modules"].as_array().unwrap().iter().filter(|module| module["status"] != "disabled");
    let ids = modules.map(|module| module["id"].as_str().unwrap().to_owned());
    ids.filter(|id| !ROUTES.contains(&id.as_str())).collect()
}

fn restarts(module: &Json) -> u64 {
    module["restarts"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn s1_a_panic_in_every_part_restarts_that_part_and_the_service_goes_on() {
    let home = Home::new(&RULES.replace("connector.metrics: {enabled: false}", "connector.metrics: {enabled: true}"));
    let service = home.start().await;
    let parts = parts(&service).await;
    assert!(parts.len() >= 10, "{parts:?}");
    service.stop().await;
    for (round, point) in ["", "::started", "::future", "::timer"].iter().enumerate() {
        let points: Vec<String> = parts.iter().map(|part| format!("actor::{part}{point}=1*panic(injected)")).collect();
        let service = home.start_with(&[("FAILPOINTS", &points.join(";"))]).await;
        for part in &parts {
            let healthy = until(&format!("{part} to be restarted after a panic at {point:?}"), async || {
                let module = service.module(part).await;
                (restarts(&module) >= 1 && module["status"] == "healthy").then_some(module)
            })
            .await;
            // what stands on another part of the core is restarted with that one too
            let most = if part.starts_with("core.") { 2 } else { 1 };
            assert!((1..=most).contains(&restarts(&healthy)), "{healthy}");
        }
        service.logs(&format!("shop-{round}"), &["payment failed for order 1"]).await;
        until("the incident of this round", async || {
            service.incidents().await.into_iter().find(|incident| incident["source"] == format!("shop-{round}"))
        })
        .await;
        service.stop().await;
    }
}

#[tokio::test]
async fn s2_a_core_part_that_panics_again_and_again_ends_the_process_with_70() {
    let home = Home::new(RULES);
    let mut service = home.spawn(&[("FAILPOINTS", "actor::core.events::started=panic(storm)")]);
    let status = service.ended().await;
    assert_eq!(status.code(), Some(70));
    until("the reason in the log", async || service.log.has("a part that is needed cannot be kept running").then_some(())).await;
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 1"]).await;
    service.incident("order 1").await;
    service.stop().await;
}

#[tokio::test]
async fn s2_a_module_that_panics_again_and_again_is_given_up_and_the_others_go_on() {
    let home = Home::new(RULES);
    let service = home.start_with(&[("FAILPOINTS", "actor::detector.threshold::started=panic(storm)")]).await;
    until("the module to be given up", async || (service.module("detector.threshold").await["status"] == "failed").then_some(())).await;
    service.logs("checkout", &["payment failed for order 1"]).await;
    service.incident("order 1").await;
    assert_eq!(service.get("/api/health").await["status"], "degraded");
    service.stop().await;
}
