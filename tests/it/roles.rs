//! Who may do what, over the running service.

use reqwest::Method;
use serde_json::json;

use crate::{common::Home, story::RULES};

#[tokio::test]
async fn every_role_may_do_its_own_and_no_more() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let mut tokens = Vec::new();
    for role in ["integrator", "viewer", "operator"] {
        let (status, answer) =
            service.post("/api/users", json!({ "username": role, "role": role, "password": "a long enough password" })).await;
        assert_eq!(status, 201, "{answer}");
        tokens.push(service.log_in(role, "a long enough password").await);
    }
    service.logs("checkout", &["payment failed for order 1"]).await;
    let id = service.incident("order 1").await["id"].as_str().unwrap().to_owned();
    let ingest = ("/api/events".to_owned(), json!({ "source": "x", "message": "y" }));
    let acknowledge = (format!("/api/incidents/{id}/acknowledge"), json!({}));
    let user = ("/api/users".to_owned(), json!({ "username": "eve", "role": "admin", "password": "a long enough password" }));
    let reload = ("/api/config/reload".to_owned(), json!({}));
    for (role, ((path, body), expected)) in [
        (0, (&ingest, 202)),
        (1, (&ingest, 403)),
        (2, (&ingest, 202)),
        (0, (&acknowledge, 403)),
        (1, (&acknowledge, 403)),
        (2, (&acknowledge, 200)),
        (1, (&user, 403)),
        (2, (&user, 403)),
        (2, (&reload, 403)),
    ] {
        let (status, answer) = service.call(Method::POST, path, Some(&tokens[role]), Some(body.clone())).await;
        assert_eq!(status, expected, "role {role} at {path}: {answer}");
    }
    let (status, _) = service.call(Method::GET, "/api/incidents", Some(&tokens[0]), None).await;
    assert_eq!(status, 403, "an integrator reads nothing");
    let (status, _) = service.call(Method::GET, "/api/incidents", None, None).await;
    assert_eq!(status, 401);
    for (name, status) in [("livez", 200), ("readyz", 200), ("health", 200)] {
        assert_eq!(service.call(Method::GET, &format!("/api/{name}"), None, None).await.0, status);
    }
    let (_, health) = service.call(Method::GET, "/api/health", None, None).await;
    assert!(health["modules"].is_null(), "details are for the authenticated: {health}");
    service.stop().await;
}
