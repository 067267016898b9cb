//! How the service starts and ends.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    common::{Home, PASSWORD, long, until},
    story::RULES,
};

#[tokio::test]
async fn a10_a_second_process_on_the_directory_is_refused_and_the_first_does_not_notice() {
    let home = Home::new(RULES);
    let first = home.start().await;
    let mut second = home.spawn(&[]);
    let status = second.ended().await;
    assert_eq!(status.code(), Some(1));
    until("the reason", async || second.log.lines().iter().any(|line| line.contains("data") && line.contains("process")).then_some(()))
        .await;
    first.logs("checkout", &["payment failed for order 1"]).await;
    first.incident("order 1").await;
    first.stop().await;
}

#[tokio::test]
async fn a13_sigterm_under_load_keeps_what_was_acknowledged_closes_sockets_and_ends_in_time() {
    let rounds = if long() { 200 } else { 1 };
    let mut drained = Vec::new();
    for round in 1..=rounds {
        drained.push(sigterm_under_load().await);
        if round % 20 == 0 {
            println!("a13: {round} of {rounds}");
        }
    }
    drained.sort();
    // the smallest that 99 of 100 do not exceed
    let p99 = drained[(drained.len() * 99).div_ceil(100) - 1];
    println!("a13: {rounds} stops under load: median {:?}, p99 {p99:?}, longest {:?}", drained[drained.len() / 2], drained.last().unwrap());
}

/// How long a stop under load takes.
async fn sigterm_under_load() -> Duration {
    let home = Home::new(RULES);
    let mut service = home.start().await;
    let mut feed = service.socket().await;
    feed.subscribe(&["incident.created"], None).await;
    let mut senders = Vec::new();
    for sender in 0..4 {
        let (http, url, token) = (service.http.clone(), service.url.clone(), service.token.clone().unwrap());
        senders.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let line = format!("line {sender}-{number}");
                let sent = http
                    .post(format!("{url}/api/events"))
                    .bearer_auth(&token)
                    .json(&json!({ "source": "load", "message": line }))
                    .send()
                    .await;
                match sent {
                    Ok(answer) if answer.status() == 202 => acknowledged.push(line),
                    _ => break,
                }
            }
            acknowledged
        }));
    }
    until("some load", async || (service.get("/api/signals?limit=200").await["items"].as_array().unwrap().len() > 50).then_some(())).await;
    let begun = tokio::time::Instant::now();
    service.signal(Signal::TERM);
    assert_eq!(feed.closed().await, 1001, "the socket is told that the service goes away");
    let status = service.ended().await;
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(acknowledged.len() > 50, "there was load: {}", acknowledged.len());
    let service = home.start().await;
    let stored: std::collections::HashSet<String> = service.messages().await.into_iter().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|line| !stored.contains(*line)).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    service.stop().await;
    took
}

#[tokio::test]
async fn a_busy_port_and_a_bad_configuration_end_with_1_and_say_so() {
    let home = Home::new("server: {lisen: 1}\n");
    let mut service = home.spawn(&[]);
    assert_eq!(service.ended().await.code(), Some(1));
    until("the reason", async || service.log.has("did you mean `listen`?").then_some(())).await;
    assert!(!home.data().exists(), "nothing was started");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let output = crate::common::command()
        .args(["serve", "--listen", &taken, "--data"])
        .arg(home.data())
        .current_dir(home.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is a service running already?"));
    assert!(!home.data().exists());
}

#[tokio::test]
async fn the_first_start_makes_two_users_and_shows_their_passwords_once() {
    let home = Home::new("");
    let start = || {
        crate::common::command()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(home.data())
            .current_dir(home.dir.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = start();
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        use std::io::BufRead;
        for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(send.send(line));
        }
    });
    let mut said = Vec::new();
    while !said.iter().any(|line: &String| line.contains("\"kind\":\"alert\"")) {
        said.push(lines.recv_timeout(Duration::from_secs(20)).expect("the greeting"));
    }
    for user in ["admin", "approver"] {
        assert!(said.iter().any(|line| line.trim().starts_with(user) && line.trim().len() > user.len() + 12), "{said:?}");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let service = home.spawn(&[]);
    drop(service);
}

#[tokio::test]
async fn a_session_survives_a_restart() {
    let home = Home::new(RULES);
    let service = home.start().await;
    let token = service.token.clone().unwrap();
    service.stop().await;
    let mut service = home.spawn(&[]);
    service.ready().await;
    let (status, me) = service.call(reqwest::Method::GET, "/api/auth/me", Some(&token), None).await;
    assert_eq!(status, 200, "{me}");
    service.log_in("admin", PASSWORD).await;
    service.token = Some(token);
    service.stop().await;
}
