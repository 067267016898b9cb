//! The operator's page over HTTP.

use super::support::{Api, As};

#[actix_web::test]
async fn the_page_is_kept_by_browsers_only_for_as_long_as_it_is_the_same() {
    let api = Api::start().await;
    let page = api.get(As::Nobody, "/").await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-store");
    for (name, kind) in
        [("main.js", "text/javascript; charset=utf-8"), ("base.css", "text/css; charset=utf-8"), ("icon.svg", "image/svg+xml")]
    {
        let path = format!("/page/{name}");
        let file = api.get(As::Nobody, &path).await.expect(200);
        assert_eq!(file.header("content-type"), kind, "{name}");
        assert_eq!(file.header("cache-control"), "no-cache", "{name}");
        assert_eq!(file.header("x-content-type-options"), "nosniff", "{name}");
        assert!(file.header("content-security-policy").contains("require-trusted-types-for 'script'"), "{name}");
        let again = api.request(As::Nobody, "get", &path).header("if-none-match", file.header("etag")).send().await.unwrap();
        assert_eq!(again.status(), 304, "{name}");
        assert!(again.bytes().await.unwrap().is_empty(), "{name}");
        let older = api.request(As::Nobody, "get", &path).header("if-none-match", "\"0\"").send().await.unwrap();
        assert_eq!(older.status(), 200, "{name}");
    }
    for path in ["/page/nothing.js", "/page/index.html", "/page/..%2fmod.rs", "/page/mod.rs"] {
        api.get(As::Nobody, path).await.expect(404);
    }
    api.stop().await;
}

#[actix_web::test]
async fn without_its_module_there_is_no_page_and_the_api_goes_on() {
    let api = Api::start().await;
    api.state.dashboard.open().stop().await;
    for path in ["/", "/page/main.js"] {
        assert_eq!(api.get(As::Nobody, path).await.expect(503).code(), "unavailable", "{path}");
    }
    api.get(As::Nobody, "/api/livez").await.expect(200);
    drop(api.state.dashboard.open());
    api.get(As::Nobody, "/").await.expect(200);
    api.stop().await;
}
