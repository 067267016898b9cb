//! Modules as the health report lists them, and as an admin switches them.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::{Home, Service, until};

const CONFIG: &str = "limits: {requests: {read: 10000000, write: 10000000}}\n";

fn status(module: &Json) -> &str {
    module["status"].as_str().unwrap_or("not listed")
}

async fn up(service: &Service, module: &str) -> Option<String> {
    let url = format!("{}/api/metrics", service.url);
    let text = service.http.get(url).bearer_auth(service.token.as_deref().unwrap()).send().await.unwrap().text().await.unwrap();
    let line = format!("opspilot_module_up{{module=\"{module}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map(str::to_owned)
}

#[tokio::test]
async fn every_module_is_listed_and_measured_also_those_without_an_actor() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    let ids = opspilot::topology::catalogue().into_iter().map(|entry| entry.id.as_str());
    let listed = service.get("/api/modules").await;
    for id in ids.chain(["ui.api"]) {
        let now = service.module(id).await;
        assert!(matches!(status(&now), "healthy" | "degraded" | "disabled"), "{id}: {now}");
        let works = if status(&now) == "disabled" { "0" } else { "1" };
        assert_eq!(up(&service, id).await.as_deref(), Some(works), "{id}: {now}");
        assert!(listed["items"].as_array().unwrap().iter().any(|module| module["id"] == id), "{id}: {listed}");
    }
    assert_eq!(status(&service.module("ui.api").await), "healthy");
    service.stop().await;
}

#[tokio::test]
async fn a_module_that_is_switched_off_and_on_and_restarted_is_as_it_was() {
    let home = Home::new(CONFIG);
    let service = home.start().await;
    for entry in opspilot::topology::catalogue() {
        let id = entry.id.as_str();
        let before = service.module(id).await;
        if status(&before) == "disabled" {
            let (refused, answer) = service.post(&format!("/api/modules/{id}/restart"), json!({})).await;
            assert_eq!(refused, 409, "{id}: {answer}");
            continue;
        }
        let was = status(&before);
        for (to, shows) in [("restart", was), ("disable", "disabled"), ("enable", was), ("restart", was)] {
            let (done, answer) = service.post(&format!("/api/modules/{id}/{to}"), json!({})).await;
            assert_eq!((done, &answer["id"]), (200, &json!(id)), "{to}: {answer}");
            // its actors take a moment to come back
            until(&format!("{id} to be {shows} after {to}"), async || (status(&service.module(id).await) == shows).then_some(())).await;
        }
    }
    let page = service.http.get(&service.url).send().await.unwrap();
    assert_eq!(page.status(), 200, "the page is back as well");
    let (refused, answer) = service.post("/api/modules/ui.api/restart", json!({})).await;
    assert_eq!(refused, 409, "the API cannot be switched off through itself: {answer}");
    assert_eq!(service.call(Method::POST, "/api/modules/ui.none/restart", service.token.as_deref(), Some(json!({}))).await.0, 404);
    service.stop().await;
}
