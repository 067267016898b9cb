//! Rate limits, and who is counted.

use std::time::Duration;

use opspilot_kernel::{
    clock::{Clock as _, ManualClock},
    principal::Role,
    time::Timestamp,
};
use serde_json::json;

use super::support::{Api, As, PASSWORD, roomy, send};
use crate::http::{
    auth::apikey,
    limits::{Class, Client, RateLimiter, origin},
    settings::{RateLimits, Settings},
};

fn client(n: u32) -> Client {
    Client::address(std::net::IpAddr::V4((0x0a00_0000 + n).into()))
}

#[test]
fn the_window_slides() {
    let clock = ManualClock::at(Timestamp::from_millis(1_000_000_000_000));
    let limiter = RateLimiter::new(clock.clone(), RateLimits { reads: 60, ..RateLimits::default() });
    let take = || limiter.take(client(1), Class::Read, None);
    clock.advance(Duration::from_secs(90));
    for n in 0..60 {
        assert_eq!(take().unwrap().remaining, 59 - n);
    }
    let over = take().unwrap_err();
    assert_eq!((over.limit, over.remaining), (60, 0));
    // thirty seconds into its window; the next begins in thirty, and a second later one has left the sixty
    assert_eq!(over.retry_after, 31);
    clock.advance(Duration::from_secs(30));
    take().expect_err("a new fixed window does not give everything back");
    clock.advance(Duration::from_secs(1));
    take().expect("as announced");
    take().expect_err("one, not two");
    clock.advance(Duration::from_secs(29));
    assert_eq!((0..100).filter(|_| take().is_ok()).count(), 29, "half of the window before still weighs");
    clock.advance(Duration::from_secs(120));
    assert_eq!(take().unwrap().remaining, 59);
}

#[test]
fn never_more_than_the_limit_in_any_sixty_seconds_at_an_even_pace() {
    let clock = ManualClock::at(Timestamp::ZERO);
    let limiter = RateLimiter::new(clock.clone(), RateLimits { writes: 100, ..RateLimits::default() });
    let mut allowed = std::collections::VecDeque::new();
    for _ in 0..6_000 {
        clock.advance(Duration::from_millis(97));
        let now = clock.elapsed();
        if limiter.take(client(1), Class::Write, None).is_ok() {
            allowed.push_back(now);
        }
        while allowed.front().is_some_and(|first| now - *first >= Duration::from_secs(60)) {
            allowed.pop_front();
        }
        assert!(allowed.len() <= 103, "{} in a minute", allowed.len());
    }
}

#[test]
fn waiting_as_long_as_told_is_enough() {
    let clock = ManualClock::at(Timestamp::ZERO);
    let limiter = RateLimiter::new(clock.clone(), RateLimits { writes: 7, ..RateLimits::default() });
    let mut refused = 0;
    for step in 0..400_u64 {
        clock.advance(Duration::from_millis(step * 37 % 5_000));
        if let Err(standing) = limiter.take(client(1), Class::Write, None) {
            refused += 1;
            clock.advance(Duration::from_secs(standing.retry_after));
            limiter.take(client(1), Class::Write, None).expect("after the wait it told");
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn memory_is_bounded_under_a_flood_of_addresses() {
    let clock = ManualClock::at(Timestamp::ZERO);
    let limiter = RateLimiter::new(clock.clone(), RateLimits { reads: 10, clients: 1_000, ..RateLimits::default() });
    for n in 0..20_000 {
        clock.advance(Duration::from_millis(1));
        limiter.take(client(n), Class::Read, None).unwrap();
    }
    assert!(limiter.clients() <= 1_000, "{}", limiter.clients());
    assert_eq!(limiter.take(client(19_999), Class::Read, None).unwrap().remaining, 8, "who came last is still counted");
}

#[test]
fn roles_may_have_numbers_of_their_own_and_ingest_has_none() {
    let clock = ManualClock::at(Timestamp::ZERO);
    let limits = RateLimits { reads: 5, writes: 3, roles: vec![(Role::Admin, 50, 30)], ..RateLimits::default() };
    let limiter = RateLimiter::new(clock, limits);
    assert_eq!(limiter.take(client(1), Class::Read, Some(Role::Admin)).unwrap().limit, 50);
    assert_eq!(limiter.take(client(1), Class::Write, Some(Role::Viewer)).unwrap().limit, 3);
    for _ in 0..1_000 {
        limiter.take(client(2), Class::Ingest, Some(Role::Integrator)).unwrap();
    }
    assert_eq!((0..10).filter(|_| limiter.take(client(3), Class::Ingest, None).is_ok()).count(), 3, "nobody we know");
}

#[test]
fn h4_forwarded_headers_count_only_from_a_trusted_proxy() {
    use actix_web::http::header::{HeaderMap, HeaderName};
    let of = |peer: &str, trusted: &[&str], forwarded: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(HeaderName::from_static("x-forwarded-for"), value.parse().unwrap());
        }
        headers.insert(HeaderName::from_static("x-forwarded-proto"), "https".parse().unwrap());
        headers.insert(HeaderName::from_static("forwarded"), "for=6.6.6.6;host=evil".parse().unwrap());
        headers.insert(HeaderName::from_static("x-forwarded-host"), "evil".parse().unwrap());
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let origin = origin(Some(peer.parse().unwrap()), &headers, &trusted, false);
        (origin.address.to_string(), origin.tls)
    };
    assert_eq!(of("9.9.9.9", &[], &["1.2.3.4"]), ("9.9.9.9".to_owned(), false));
    assert_eq!(of("9.9.9.9", &["10.0.0.0/8"], &["1.2.3.4"]), ("9.9.9.9".to_owned(), false));
    assert_eq!(of("10.0.0.1", &["10.0.0.0/8"], &["1.2.3.4"]), ("1.2.3.4".to_owned(), true));
    assert_eq!(
        of("10.0.0.1", &["10.0.0.0/8"], &["6.6.6.6, 1.2.3.4, 10.0.0.2"]),
        ("1.2.3.4".to_owned(), true),
        "what the client wrote itself is left of it"
    );
    assert_eq!(of("10.0.0.1", &["10.0.0.0/8"], &["6.6.6.6", "1.2.3.4"]), ("1.2.3.4".to_owned(), true));
    assert_eq!(of("10.0.0.1", &["10.0.0.0/8"], &["1.2.3.4, garbage"]), ("10.0.0.1".to_owned(), true));
    assert_eq!(of("10.0.0.1", &["10.0.0.0/8"], &[]), ("10.0.0.1".to_owned(), true));
    assert_eq!(of("::ffff:10.0.0.1", &["10.0.0.0/8"], &["::ffff:1.2.3.4"]), ("1.2.3.4".to_owned(), true));
}

fn tight() -> Settings {
    Settings { rate_limits: RateLimits { reads: 5, writes: 4, logins: 3, ..RateLimits::default() }, ..roomy() }
}

#[actix_web::test]
async fn every_answer_says_how_the_client_stands_and_the_one_too_many_when_to_come_back() {
    let api = Api::with(tight(), |_| {}).await;
    let token = api.someone("ada", Role::Viewer).await;
    for left in (0..5).rev() {
        let got = api.get(As::Token(&token), "/api/auth/me").await.expect(200);
        assert_eq!((got.header("x-ratelimit-limit"), got.header("x-ratelimit-remaining")), ("5", left.to_string().as_str()));
        let reset: i64 = got.header("x-ratelimit-reset").parse().unwrap();
        let now = api.state.clock.now().seconds();
        assert!((now..=now + 121).contains(&reset), "{reset} at {now}");
    }
    let over = api.get(As::Token(&token), "/api/auth/me").await.expect(429);
    assert_eq!((over.code(), over.header("x-ratelimit-remaining")), ("rate_limited", "0"));
    let wait: u64 = over.header("retry-after").parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    // writes, other clients and what is exempt go on
    api.post(As::Token(&token), "/api/auth/ws-ticket", json!({})).await.expect(200);
    api.get(As::Nobody, "/api/health").await.expect(200);
    for _ in 0..20 {
        let got = api.get(As::Nobody, "/api/livez").await.expect(200);
        assert!(!got.header("x-ratelimit-limit").is_empty());
    }
    api.clock.advance(Duration::from_secs(wait));
    api.get(As::Token(&token), "/api/auth/me").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn who_tries_one_unknown_key_after_another_is_held_back_before_the_ledger_is_asked() {
    let settings = Settings { rate_limits: RateLimits { reads: 1_000, writes: 4, ..RateLimits::default() }, ..roomy() };
    let api = Api::with(settings, |_| {}).await;
    let token = api.someone("root", Role::Admin).await;
    let key = api.key(&token, "viewer").await;
    let new = api.key(&token, "viewer").await;
    api.get(As::Key(&key), "/api/auth/me").await.expect(200);
    let unknown = |n: u8| apikey::from_secret(&[n; 32]);
    // the same one again costs nothing, and neither does what cannot be a key
    for _ in 0..20 {
        api.get(As::Key(&unknown(0)), "/api/auth/me").await.expect(401);
        api.get(As::Key("opk_nonsense"), "/api/auth/me").await.expect(401);
    }
    for n in 1..4 {
        api.get(As::Key(&unknown(n)), "/api/auth/me").await.expect(401);
    }
    // one that is good but new stands for all of which nobody knows yet: the ledger would have said yes
    for key in [&unknown(4), &unknown(5), &new] {
        let held = api.get(As::Key(key), "/api/auth/me").await.expect(429);
        assert_eq!((held.code(), held.header("x-ratelimit-remaining")), ("rate_limited", "0"));
        assert!((1..=120).contains(&held.header("retry-after").parse::<u64>().unwrap()));
    }
    api.get(As::Nobody, "/api/health").await.expect(200);
    // who is known goes on, also when what is known of them must be asked anew
    for _ in 0..2 {
        api.get(As::Key(&key), "/api/auth/me").await.expect(200);
        api.get(As::Token(&token), "/api/auth/me").await.expect(200);
        api.state.auth.settle(async { Ok::<(), opspilot_ledger::LedgerError>(()) }).await.unwrap();
    }
    api.clock.advance(Duration::from_secs(120));
    api.get(As::Key(&new), "/api/auth/me").await.expect(200);
    api.stop().await;
}

#[actix_web::test]
async fn h4_t12_log_ins_are_limited_by_address_whatever_the_client_says_it_is() {
    let api = Api::with(tight(), |_| {}).await;
    let login = |n: u32| {
        let body = json!({ "username": format!("user-{n}"), "password": PASSWORD });
        let request = api.request(As::Nobody, "post", "/api/auth/login").json(&body);
        send(request.header("x-forwarded-for", format!("1.2.3.{n}")).header("forwarded", format!("for=1.2.3.{n}")))
    };
    for n in 0..3 {
        login(n).await.expect(401);
    }
    assert_eq!(login(4).await.expect(429).code(), "rate_limited");
    api.stop().await;

    let api = Api::with(Settings { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..tight() }, |_| {}).await;
    let login = |n: u32| {
        let body = json!({ "username": format!("user-{n}"), "password": PASSWORD });
        send(api.request(As::Nobody, "post", "/api/auth/login").json(&body).header("x-forwarded-for", format!("1.2.3.{n}")))
    };
    for n in 0..8 {
        login(n).await.expect(401);
    }
    api.stop().await;
}
