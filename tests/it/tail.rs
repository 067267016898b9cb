//! Files that are tailed, over the whole service: rotation, and what a restart remembers.

use crate::common::{Home, append, until};

fn config(home: &Home) -> String {
    let path = home.path("app.log").display().to_string();
    format!(
        "modules:\n  connector.metrics: {{enabled: false}}\n  connector.fileTail: {{files: [{{path: '{path}', source: app}}]}}\n  \
         detector.regex:\n    rules: [{{id: boom, pattern: 'boom (?P<n>\\d+)', severity: error, title: 'Boom $n'}}]\n"
    )
}

#[tokio::test]
async fn a_tailed_file_is_followed_through_rotation_by_rename() {
    let home = Home::new("");
    append(&home.path("app.log"), "before 1\nbefore 2\n");
    home.configure(&config(&home));
    let service = home.start().await;
    until("the first lines", async || (service.messages().await.len() == 2).then_some(())).await;
    append(&home.path("app.log"), "last of the old\n");
    std::fs::rename(home.path("app.log"), home.path("app.log.1")).unwrap();
    append(&home.path("app.log"), "first of the new\nboom 7\n");
    service.incident("Boom 7").await;
    assert_eq!(service.messages().await, ["before 1", "before 2", "last of the old", "first of the new", "boom 7"]);
    service.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_without_a_repeat() {
    let home = Home::new("");
    append(&home.path("app.log"), "one\ntwo\n");
    home.configure(&config(&home));
    let service = home.start().await;
    until("the first lines", async || (service.messages().await.len() == 2).then_some(())).await;
    service.kill();
    append(&home.path("app.log"), "three\n");
    let service = home.start().await;
    until("the line written meanwhile", async || service.messages().await.contains(&"three".to_owned()).then_some(())).await;
    service.stop().await;
    append(&home.path("app.log"), "four\n");
    let service = home.start().await;
    until("the last line", async || service.messages().await.contains(&"four".to_owned()).then_some(())).await;
    assert_eq!(service.messages().await, ["one", "two", "three", "four"]);
    service.stop().await;
}
