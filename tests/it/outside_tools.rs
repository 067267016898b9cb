//! The checks that outside programs make of what the service says.

use std::process::Command;

use serde_json::json;

use crate::common::{Home, PASSWORD, has_tool, long};

/// No limit is met on the way.
const CONFIG: &str = "\
limits: {requests: {read: 10000000, write: 10000000, login: 10000000}}
modules:
  connector.metrics: {enabled: false}
";

#[tokio::test]
async fn h5_schemathesis_finds_no_server_error_and_no_answer_that_is_not_as_documented() {
    if !has_tool("schemathesis") {
        return;
    }
    let home = Home::new(CONFIG);
    let service = home.start().await;
    // somebody else than the admin whose name is guessed
    let (status, made) = service.post("/api/users", json!({ "username": "schemathesis", "role": "admin", "password": PASSWORD })).await;
    assert_eq!(status, 201, "{made}");
    let token = service.log_in("schemathesis", PASSWORD).await;
    service.logs("checkout", &["payment failed for order 1"]).await;
    for authorization in [Some(format!("Authorization: Bearer {token}")), None] {
        let mut command = Command::new("schemathesis");
        command
            .current_dir(home.dir.path())
            .args(["run", &format!("{}/api/openapi.json", service.url)])
            .args(["--checks", "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"])
            .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--seed", "1", "--warnings", "off", "--no-color"])
            .args(["--max-examples", if long() { "100" } else { "5" }])
            // what ends the session under the other calls, and what becomes a socket
            .args(["--exclude-path-regex", "^/api/(auth/logout|live)$"]);
        if let Some(authorization) = &authorization {
            command.args(["--header", authorization]);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let summary = told.split("= SUMMARY =").nth(1).unwrap_or(&told);
        println!("{}: {summary}", if authorization.is_some() { "as an admin" } else { "as nobody" });
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(" generated"), "it tried nothing: {told}");
    }
    let (status, me) = service.call(reqwest::Method::GET, "/api/auth/me", Some(&token), None).await;
    assert_eq!(status, 200, "it was an admin to the end: {me}");
    let health = service.get("/api/health").await;
    let core = health["modules"].as_array().unwrap().iter().find(|module| module["id"] == "core.ledger").unwrap();
    // whatever modules were switched off or restarted on the way
    assert_ne!(health["status"], "unhealthy", "{health}");
    assert_eq!(core["status"], "healthy", "{health}");
    assert_eq!(service.call(reqwest::Method::GET, "/api/readyz", None, None).await.0, 200, "storage is writable");
    service.stop().await;
}
