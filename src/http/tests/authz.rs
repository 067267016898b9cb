//! Who may do what: every operation of the API document, tried as everybody.

use std::collections::BTreeSet;

use opspilot_kernel::principal::Role;
use serde_json::Value;

use super::support::{Api, As, is_success, send};
use crate::http::OPERATIONS;

fn admits(required: &str, role: Option<Role>) -> bool {
    match (required, role) {
        ("public", _) | ("any", Some(_)) => true,
        (_, None) => false,
        ("integrator", Some(role)) => role != Role::Viewer,
        ("viewer", Some(role)) => role != Role::Integrator,
        ("operator", Some(role)) => matches!(role, Role::Operator | Role::Admin),
        ("admin", Some(role)) => role == Role::Admin,
        (other, _) => panic!("the document names a role {other:?} that this test does not know"),
    }
}

/// The operations of the document that the service itself serves: method, path, role.
async fn operations(api: &Api) -> Vec<(String, String, String)> {
    let document = api.get(As::Nobody, "/api/openapi.json").await.expect(200).body;
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{method} {path}");
            let role = operation["x-required-role"].as_str().unwrap_or_else(|| panic!("{method} {path} names no role"));
            found.push((method.clone(), path.clone(), role.to_owned()));
        }
    }
    found
}

#[actix_web::test]
async fn t9_every_operation_is_open_to_exactly_the_roles_that_the_document_names() {
    let api = Api::start().await;
    let operations = operations(&api).await;
    let admin = api.someone("root", Role::Admin).await;
    let mut callers: Vec<(Option<Role>, Option<String>)> = vec![(None, None)];
    for role in Role::ALL {
        api.user(role.as_str(), role).await;
        callers.push((Some(role), None));
        // a key is another way to be somebody, with the same rights
        callers.push((Some(role), Some(api.key(&admin, role.as_str()).await)));
    }
    let (mut tried, mut unexpected) = (0, Vec::new());
    for (method, path, required) in &operations {
        let target = path.replace("{id}", "none").replace("{name}", "none").replace("{file}", "none").replace("{what}", "start");
        assert!(!target.contains('{'), "{path}: this test does not know how to fill its parameter");
        for (role, key) in &callers {
            // a fresh session each time: logging out is among the operations
            let token = match (role, key) {
                (Some(role), None) => Some(api.login(role.as_str()).await),
                _ => None,
            };
            let who = match (&token, key) {
                (Some(token), _) => As::Token(token),
                (_, Some(key)) => As::Key(key),
                _ => As::Nobody,
            };
            let mut request = api.request(who, method, &target);
            if method != "get" {
                request = request.header("content-type", "application/json").body("{}");
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            tried += 1;
            let right = match (admits(required, *role), role) {
                // log-in itself answers 4xx for a body without a name
                (true, _) => status != 401 && status != 403 && status < 500,
                (false, None) => status == 401,
                (false, Some(_)) => status == 403,
            };
            if !right {
                unexpected.push(format!("{method} {path} as {role:?} by {who:?}: {status}, needs {required}"));
            }
        }
    }
    assert_eq!(unexpected, Vec::<String>::new());
    println!("T9: {} operations, {tried} tries, 0 unexpected", operations.len());
    assert!(tried >= 9 * 15, "{tried}");
    api.stop().await;
}

#[actix_web::test]
async fn the_document_names_exactly_the_operations_that_are_routed() {
    let api = Api::start().await;
    let documented: BTreeSet<_> = operations(&api).await.into_iter().collect();
    let routed: BTreeSet<_> =
        OPERATIONS.iter().map(|operation| (operation.method.to_owned(), operation.path.to_owned(), operation.role.to_owned())).collect();
    assert_eq!(documented, routed);
    api.stop().await;
}

#[actix_web::test]
async fn t9_nobody_raises_their_own_role() {
    let api = Api::start().await;
    api.someone("root", Role::Admin).await;
    let operator = api.someone("otto", Role::Operator).await;
    let patch = api.request(As::Token(&operator), "patch", "/api/users/otto").json(&serde_json::json!({ "role": "admin" }));
    send(patch).await.expect(403);
    let create = api.post(As::Token(&operator), "/api/api-keys", serde_json::json!({ "name": "x", "role": "admin" })).await;
    create.expect(403);
    let extra = serde_json::json!({ "username": "otto", "password": super::support::PASSWORD, "role": "admin" });
    assert_eq!(api.post(As::Nobody, "/api/auth/login", extra).await.expect(422).body["errors"][0]["code"], "unknown_field");
    api.stop().await;
}

#[actix_web::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let api = Api::start().await;
    let token = api.someone("root", Role::Admin).await;
    for path in ["/api/nothing", "/nothing", "/api/users/a/b", "/api/", "//", "/api/livez/"] {
        assert_eq!(api.get(As::Token(&token), path).await.expect(404).code(), "not_found", "{path}");
    }
    let got = send(api.request(As::Token(&token), "delete", "/api/users")).await.expect(405);
    assert_eq!((got.code(), got.header("allow")), ("method_not_allowed", "GET, HEAD, POST"));
    send(api.request(As::Nobody, "put", "/api/livez")).await.expect(405);
    for method in ["options", "trace", "brew"] {
        let status = api.request(As::Nobody, method, "/api/livez").send().await.unwrap().status().as_u16();
        assert!(!is_success(status), "{method}: {status}");
    }
    api.stop().await;
}

#[actix_web::test]
async fn the_document_and_its_viewer_are_served_without_any_other_server() {
    let api = Api::start().await;
    let document = api.get(As::Nobody, "/api/openapi.json").await.expect(200).body;
    for field in ["type", "title", "status", "detail", "instance", "code", "errors"] {
        assert!(document["components"]["schemas"]["Problem"]["properties"].get(field).is_some(), "{field}");
    }
    assert!(document["components"]["securitySchemes"]["api-key"].is_object());
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    let page = api.get(As::Nobody, "/api/docs/").await.expect(200).body;
    assert!(page.as_str().unwrap().contains("swagger"));
    for name in ["swagger-ui-bundle.js", "swagger-initializer.js", "swagger-ui.css"] {
        let text = api.get(As::Nobody, &format!("/api/docs/{name}")).await.expect(200).body;
        assert!(matches!(text, Value::String(text) if !text.is_empty()), "{name}");
    }
    let initializer = api.get(As::Nobody, "/api/docs/swagger-initializer.js").await.expect(200).body;
    assert!(initializer.as_str().unwrap().contains("/api/openapi.json"), "{initializer}");
    let page = api.get(As::Nobody, "/").await.expect(200);
    let text = page.body.as_str().unwrap();
    assert!(text.contains("/page/main.js") && text.contains("opspilot"), "it names its script, and the way without one");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    api.stop().await;
}
