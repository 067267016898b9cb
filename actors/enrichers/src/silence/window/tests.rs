use jiff::{Zoned, civil};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Zones that change their clocks at different hours and by different spans, north and south, and one at midnight.
const ZONES: [&str; 5] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo"];
const YEARS: std::ops::RangeInclusive<i16> = 2023..=2029;
const MINUTE: i64 = 60_000;

fn window(body: serde_json::Value) -> Window {
    let mut whole = json!({ "id": "w", "matchers": ["host=h1"] });
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spans(window: &Window, from: &str, count: usize) -> Vec<(String, String)> {
    let short = |time: Timestamp| time.to_string().replace(":00.000Z", "Z");
    let mut time = at(from);
    let mut spans = Vec::new();
    for _ in 0..count {
        let Some(next) = window.next(time) else { break };
        spans.push((short(next.starts_at), short(next.ends_at)));
        time = next.starts_at;
    }
    spans
}

fn all(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

#[test]
fn a_night_in_berlin_keeps_to_the_clocks_over_both_changes() {
    let nightly = window(json!({ "times": [{ "from": "22:00", "to": "06:00" }], "timezone": "Europe/Berlin" }));
    let spring = [
        ("2026-03-27T21:00Z", "2026-03-28T05:00Z"),
        ("2026-03-28T21:00Z", "2026-03-29T04:00Z"),
        ("2026-03-29T20:00Z", "2026-03-30T04:00Z"),
    ];
    assert_eq!(spans(&nightly, "2026-03-27T12:00:00Z", 3), all(&spring));
    let autumn = [("2026-10-24T20:00Z", "2026-10-25T05:00Z"), ("2026-10-25T21:00Z", "2026-10-26T05:00Z")];
    assert_eq!(spans(&nightly, "2026-10-24T12:00:00Z", 2), all(&autumn));
}

#[test]
fn what_the_clocks_jump_over_begins_at_the_jump_or_does_not_take_place() {
    let of = |from: &str, to: &str| window(json!({ "times": [{ "from": from, "to": to }], "timezone": "Europe/Berlin" }));
    let day = "2026-03-28T12:00:00Z"; // the clocks go from 02:00 to 03:00 on the 29th, at 01:00 UTC
    let first = |window: Window| spans(&window, day, 1);
    assert_eq!(first(of("02:30", "04:00")), all(&[("2026-03-29T01:00Z", "2026-03-29T02:00Z")]));
    assert_eq!(first(of("01:00", "02:30")), all(&[("2026-03-29T00:00Z", "2026-03-29T01:00Z")]));
    assert_eq!(first(of("02:00", "03:00")), all(&[("2026-03-30T00:00Z", "2026-03-30T01:00Z")]), "not on that day");
    assert_eq!(first(of("02:10", "02:50")), all(&[("2026-03-30T00:10Z", "2026-03-30T00:50Z")]), "not on that day");
}

#[test]
fn an_hour_that_comes_twice_belongs_to_the_window_both_times() {
    let of = |from: &str, to: &str| window(json!({ "times": [{ "from": from, "to": to }], "timezone": "Europe/Berlin" }));
    let first = |window: Window| spans(&window, "2026-10-24T12:00:00Z", 1); // 02:00 to 03:00 comes twice, from 00:00 UTC on
    assert_eq!(first(of("02:10", "02:30")), all(&[("2026-10-25T00:10Z", "2026-10-25T01:30Z")]));
    assert_eq!(first(of("01:00", "02:00")), all(&[("2026-10-24T23:00Z", "2026-10-25T00:00Z")]), "it is over when 02:00 is first shown");
    assert_eq!(first(of("02:00", "03:00")), all(&[("2026-10-25T00:00Z", "2026-10-25T02:00Z")]));
}

#[test]
fn days_are_chosen_by_every_list_that_is_not_empty() {
    let first_mondays = window(json!({ "weekdays": ["mon"], "days_of_month": ["1:7"], "times": [{ "from": "01:00", "to": "02:00" }] }));
    let expected = [("2026-01-05T01:00Z", "2026-01-05T02:00Z"), ("2026-02-02T01:00Z", "2026-02-02T02:00Z")];
    assert_eq!(spans(&first_mondays, "2026-01-01T00:00:00Z", 2), all(&expected));
    let last_days = window(json!({ "days_of_month": [-1], "months": ["january:march"] }));
    let expected = [
        ("2026-01-31T00:00Z", "2026-02-01T00:00Z"),
        ("2026-02-28T00:00Z", "2026-03-01T00:00Z"),
        ("2026-03-31T00:00Z", "2026-04-01T00:00Z"),
    ];
    assert_eq!(spans(&last_days, "2026-01-01T00:00:00Z", 3), all(&expected));
    let leap = window(json!({ "days_of_month": [29], "months": [2] }));
    assert_eq!(spans(&leap, "2096-03-01T00:00:00Z", 1), all(&[("2104-02-29T00:00Z", "2104-03-01T00:00Z")]), "2100 is no leap year");
    let weekend = window(json!({ "weekdays": ["saturday:sunday"], "timezone": "America/New_York" }));
    assert_eq!(spans(&weekend, "2026-03-06T00:00:00Z", 1), all(&[("2026-03-07T05:00Z", "2026-03-09T04:00Z")]), "two days in a row are one");
    let winter = window(json!({ "months": ["november:february"], "weekdays": ["sunday:tuesday"] }));
    assert_eq!(
        spans(&winter, "2026-02-20T00:00:00Z", 2),
        all(&[("2026-02-22T00:00Z", "2026-02-25T00:00Z"), ("2026-11-01T00:00Z", "2026-11-04T00:00Z")])
    );
    let once = window(json!({ "days": ["2026-12-24", "2026-12-31"], "times": [{ "from": "18:00", "to": "24:00" }] }));
    let expected = [("2026-12-24T18:00Z", "2026-12-25T00:00Z"), ("2026-12-31T18:00Z", "2027-01-01T00:00Z")];
    assert_eq!(spans(&once, "2026-01-01T00:00:00Z", 9), all(&expected));
}

#[test]
fn a_window_without_days_and_times_is_always() {
    let always = window(json!({}));
    let now = at("2026-07-01T12:00:00Z");
    assert!(always.at(now).is_some());
    assert!(always.next_change(now).unwrap() > at("2027-01-01T00:00:00Z"));
}

#[test]
fn what_is_written_is_read_back_and_what_is_wrong_says_so() {
    let body = json!({ "id": "w", "matchers": ["host=\"h1\""], "days": ["2026-12-24"], "weekdays": ["monday:friday"], "days_of_month": ["-3:-1", "1"],
        "months": ["june:august"], "times": [{ "from": "22:00", "to": "24:00" }], "timezone": "Asia/Kathmandu", "mode": "suppress", "comment": "x" });
    let read: Window = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), body);
    for (key, value, reason) in [
        ("weekdays", json!(["funday"]), "'funday' is no day of the week"),
        ("months", json!([13]), "'13' is no month"),
        ("days_of_month", json!([0]), "'0' is no day of a month"),
        ("days_of_month", json!(["7:1"]), "end before they begin"),
        ("days", json!(["2026-02-30"]), "no date"),
        ("times", json!([{ "from": "24:30", "to": "25:00" }]), "'24:30' is no time of day"),
        ("times", json!([{ "from": "8:30", "to": "9:00" }]), "'8:30' is no time of day"),
        ("timezone", json!("Mars/Olympus"), "'Mars/Olympus' is no time zone"),
        ("weekday", json!(["monday"]), "unknown field `weekday`"),
    ] {
        let mut body = json!({ "id": "w", "matchers": ["host=h1"] });
        body[key] = value;
        let error = serde_json::from_value::<Window>(body).unwrap_err().to_string();
        assert!(error.contains(reason), "{key}: {error}");
    }
    let mut problems = Vec::new();
    window(json!({ "id": "a:b", "matchers": ["host=\"\""], "times": [{ "from": "01:00", "to": "01:00" }] }))
        .problems("/windows/0", &mut problems);
    assert_eq!(
        problems.iter().map(|problem| problem.pointer.as_str()).collect::<Vec<_>>(),
        ["/windows/0/id", "/windows/0/matchers", "/windows/0/times/0"]
    );
}

/// What the clocks show, looked at without knowing when they change.
fn shown(zone: &TimeZone, at: i64) -> DateTime {
    zone.to_datetime(Instant::from_millisecond(at).unwrap())
}

/// Whether the clocks show a time of the window; days are those on which it begins.
fn by_the_clocks(window: &Window, now: DateTime) -> bool {
    window.hours().iter().any(|hours| {
        let begins = |day: Date| terms::is_among(day, &window.days, &window.weekdays, &window.days_of_month, &window.months);
        let on = |day: Date, time: TimeOfDay| {
            let (clock, next) = time.on_the_clock();
            (if next { day.tomorrow().unwrap() } else { day }).to_datetime(clock)
        };
        [now.date(), now.date().yesterday().unwrap()].into_iter().any(|day| {
            let end = if hours.to <= hours.from { on(day.tomorrow().unwrap(), hours.to) } else { on(day, hours.to) };
            begins(day) && on(day, hours.from) <= now && now < end
        })
    })
}

/// Every change of the clocks in these years.
fn changes(zone: &TimeZone) -> Vec<i64> {
    let first = civil::date(*YEARS.start(), 1, 1).to_zoned(zone.clone()).unwrap().timestamp();
    let last: Zoned = civil::date(YEARS.end() + 1, 1, 1).to_zoned(zone.clone()).unwrap();
    let found = zone.following(first).take_while(|transition| transition.timestamp() < last.timestamp());
    found.map(|transition| transition.timestamp().as_millisecond()).collect()
}

fn any_hours() -> impl Strategy<Value = Hours> {
    let time = |minutes: i16| format!("{:02}:{:02}", minutes / 60, minutes % 60).parse::<TimeOfDay>().unwrap();
    // near the hours at which clocks are changed, in steps of ten minutes
    let minutes = || prop_oneof![3 => 0..=30_i16, 1 => 0..144_i16].prop_map(|step| step * 10);
    (minutes(), minutes())
        .prop_filter("some time", |(from, to)| from != to)
        .prop_map(move |(from, to)| Hours { from: time(from), to: time(to) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn over_every_change_of_five_zones_a_window_is_what_the_clocks_show(
        hours in proptest::collection::vec(any_hours(), 1..3),
        weekdays in prop_oneof![Just(vec![]), Just(vec!["sunday"]), Just(vec!["saturday:sunday"]), Just(vec!["friday"])],
        offset in 0..MINUTE * 10,
    ) {
        for name in ZONES {
            let mut window = window(json!({ "weekdays": weekdays, "timezone": name }));
            window.times = hours.clone();
            let zone = window.timezone.zone().clone();
            let changes = changes(&zone);
            prop_assert!(changes.len() >= 13, "{name} changes its clocks twice a year");
            for change in changes {
                // every ten minutes, from four hours before until four hours behind
                let mut time = change - 240 * MINUTE + offset;
                while time < change + 240 * MINUTE {
                    let active = window.at(Timestamp::from_millis(time));
                    let show = shown(&zone, time);
                    if by_the_clocks(&window, show) {
                        prop_assert!(active.is_some(), "{name}: the clocks show {show}, and the window is not there");
                    } else if let Some(active) = active {
                        // in between: what the clocks show comes twice, and lies in the hour of the change
                        let twice = changes_within(&zone, active, change);
                        prop_assert!(twice, "{name}: the clocks show {show}, and the window is there: {active:?}");
                    }
                    time += 10 * MINUTE;
                }
            }
        }
    }

    #[test]
    fn what_is_next_is_what_comes(hours in any_hours(), zone in 0..5_usize, change in 0..13_usize, before in 0..2000_i64) {
        let mut window = window(json!({ "timezone": ZONES[zone] }));
        window.times = vec![hours];
        let time = Timestamp::from_millis(changes(window.timezone.zone())[change] - before * MINUTE);
        let change = window.next_change(time).unwrap();
        prop_assert!(change > time);
        let before = |at: Timestamp| Timestamp::from_millis(at.millis() - 1);
        prop_assert_eq!(window.at(time).is_some(), window.at(before(change)).is_some(), "nothing changes until then");
        prop_assert_ne!(window.at(before(change)).is_some(), window.at(change).is_some(), "and then it does");
        let next = window.next(time).unwrap();
        prop_assert_eq!(window.at(next.starts_at), Some(next));
        prop_assert!(window.at(before(next.starts_at)).is_none());
        prop_assert!(window.at(next.ends_at).is_none());
    }
}

/// Whether the clocks are set back at `change`, within the window.
fn changes_within(zone: &TimeZone, active: Occurrence, change: i64) -> bool {
    let set_back = shown(zone, change) < shown(zone, change - 1);
    set_back && active.starts_at.millis() < change && change < active.ends_at.millis()
}
