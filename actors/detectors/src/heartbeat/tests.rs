use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    config::{Secret, Span},
    signal::AlertState::{Firing, Resolved},
};
use proptest::prelude::*;

use super::{Config, Detector, Heartbeat, Ping, Standing, What};
use crate::{
    Detect,
    testing::{Owned, Step, fate, log_of, ms, outline, say, survive},
};

const MINUTE: i64 = 60_000;

fn backup() -> Heartbeat {
    Heartbeat { grace: Some(Span::seconds(60)), ..Heartbeat::new("backup", Span::seconds(300)) }
}

fn detector(heartbeats: Vec<Heartbeat>) -> Detector {
    Detector::new(Config { heartbeats })
}

/// A ping; `backup#r1` is of the run `r1`.
fn ping_from(heartbeat: &str, at: i64, what: What, body: &str) -> Step {
    let mut owned = None;
    let (heartbeat, run) = heartbeat.split_once('#').map_or((heartbeat, None), |(heartbeat, run)| (heartbeat, Some(run)));
    Ping { heartbeat, what, run }.signal(ms(at), heartbeat, body, |signal| {
        owned = Some(Owned {
            name: signal.name.to_owned(),
            severity: signal.severity,
            labels: signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..Owned::log(signal.at, signal.source, signal.message)
        });
    });
    Step::Signal(ms(at), owned.unwrap())
}

fn ping(at: i64, what: What) -> Step {
    ping_from("backup", at, what, "")
}

/// The steps with the ticks that the detector asks for between them, up to `end`; `away` are times in which there are none.
fn lived(steps: Vec<Step>, end: i64, away: &[(i64, i64)]) -> Vec<Step> {
    let at = |step: &Step| match step {
        Step::Signal(at, _) | Step::Tick(at) => at.millis() - ms(0).millis(),
    };
    let mut all: Vec<Step> = (0..=end / 10_000).map(|n| Step::tick(n * 10_000)).chain(steps).collect();
    all.sort_by_key(at);
    all.retain(|step| !away.iter().any(|(from, to)| (*from..*to).contains(&at(step))));
    all
}

fn said(heartbeats: Vec<Heartbeat>, steps: Vec<Step>, end: i64, away: &[(i64, i64)]) -> Vec<AlertRecord> {
    say(detector(heartbeats), &lived(steps, end, away))
}

#[test]
fn silence_beyond_period_and_grace_is_the_alarm_and_a_ping_ends_it() {
    let records = said(vec![backup()], vec![ping(0, What::Success), ping(12 * MINUTE, What::Success)], 13 * MINUTE, &[]);
    assert_eq!(outline(&records), ["360000 firing 1 backup backup", "720000 resolved clear backup backup"]);
    assert_eq!(records[0].title, "no ping from backup for 6 min (expected every 5 min, 1 min grace)");
    assert_eq!(records[0].description, format!("Last one at {}.", ms(0)));
    assert_eq!(records[0].evidence.len(), 1);
    assert_eq!(records[1].description, format!("a ping came at {}, 12 min after the last one", ms(12 * MINUTE)));
}

#[test]
fn a_nightly_backup_is_told_of_as_people_would() {
    let nightly = Heartbeat { grace: Some(Span::seconds(3600)), ..Heartbeat::new("backup-nightly", Span::seconds(86_400)) };
    let steps = vec![ping_from("backup-nightly", 0, What::Success, "")];
    let records = said(vec![nightly], steps, 52 * 60 * MINUTE, &[]);
    let titles: Vec<&str> = records.iter().map(|record| record.title.as_str()).collect();
    // and again for the next ping that did not come
    let expected = [
        "no ping from backup-nightly for 25 h (expected every 24 h, 1 h grace)",
        "no ping from backup-nightly for 49 h (expected every 24 h, 1 h grace)",
    ];
    assert_eq!(titles, expected);
    assert_eq!(records[0].alert, records[1].alert);
}

#[test]
fn one_that_was_never_heard_of_is_an_alarm_too() {
    let records = said(vec![backup()], vec![], 7 * MINUTE, &[]);
    assert_eq!(outline(&records), ["360000 firing 1 backup backup"]);
    assert_eq!(records[0].title, "no ping from backup ever: watched for 6 min (expected every 5 min, 1 min grace)");
}

#[test]
fn pings_in_time_are_no_alarm() {
    let steps = (0..200).map(|n| ping(n * (6 * MINUTE - 1), What::Success)).collect();
    assert_eq!(said(vec![backup()], steps, 199 * 6 * MINUTE, &[]), []);
}

#[test]
fn a_failure_fires_at_once_and_says_how_long_the_run_took() {
    let steps = vec![
        ping(0, What::Start),
        ping_from("backup", 30_500, What::exit(3), "pg_dump: no space left"),
        ping(2 * MINUTE, What::Start),
        ping(2 * MINUTE + 10_000, What::exit(0)),
        ping(3 * MINUTE, What::Fail(None)),
    ];
    let records = said(vec![Heartbeat { description: "see the runbook".to_owned(), ..backup() }], steps, 4 * MINUTE, &[]);
    assert_eq!(
        outline(&records),
        [" 30500 firing 1 backup backup", "130000 resolved clear backup backup", "180000 firing 1 backup backup"]
    );
    assert_eq!(records[0].title, "backup failed with exit code 3 after 30 s");
    assert_eq!(records[0].description, "There was no ping before this one.\nsee the runbook\npg_dump: no space left");
    let [opspilot_kernel::alert::Observation::Log { text, .. }] = &records[0].evidence[..] else { panic!() };
    assert_eq!(text, "backup failed with exit code 3\npg_dump: no space left");
    assert!(records[1].description.ends_with("the run took 10 s"), "{}", records[1].description);
    assert_eq!(records[2].title, "backup failed");
}

#[test]
fn a_run_that_does_not_end_is_late_though_the_next_ping_is_not_due() {
    let records = said(vec![backup()], vec![ping(0, What::Success), ping(MINUTE, What::Start), ping(200_000, What::Log)], 4 * MINUTE, &[]);
    assert_eq!(outline(&records), ["120000 firing 1 backup backup"]);
    assert_eq!(records[0].title, "backup has been running for 1 min (1 min allowed)");
    let patient = Heartbeat { max_run: Some(Span::seconds(600)), ..backup() };
    let records = said(vec![patient], vec![ping(0, What::Success), ping(MINUTE, What::Start)], 7 * MINUTE, &[]);
    assert_eq!(records[0].title, "no ping from backup for 6 min (expected every 5 min, 1 min grace)", "a start is no sign of success");
}

#[test]
fn by_a_schedule_the_next_time_is_what_counts_and_a_run_that_began_is_in_time() {
    let hour = 60 * MINUTE;
    // the log begins at noon of a Sunday, UTC
    assert_eq!(ms(0).to_string(), "2026-11-22T12:00:00.000Z");
    let nightly = |max_run: Option<Span>| Heartbeat {
        period: None,
        schedule: Some("0 3 * * *".parse().unwrap()),
        timezone: Some("Europe/Berlin".parse().unwrap()),
        grace: Some(Span::seconds(1800)),
        max_run,
        ..backup()
    };
    // 3:00 in Berlin is 2:00, fourteen hours later; before that nothing is expected, however long ago the last one was
    let records = said(vec![nightly(None)], vec![ping(0, What::Success), ping(16 * hour, What::Success)], 17 * hour, &[]);
    assert_eq!(outline(&records), ["52200000 firing 1 backup backup", "57600000 resolved clear backup backup"]);
    assert_eq!(
        records[0].title,
        "no ping from backup for 14 h 30 min (expected at 2026-11-23T02:00:00.000Z by 0 3 * * * Europe/Berlin, 30 min grace)"
    );
    let nights = |late: i64| (0..5).map(|night| ping((14 + 24 * night) * hour + late, What::Success)).collect::<Vec<Step>>();
    assert_eq!(said(vec![nightly(None)], nights(29 * MINUTE), 5 * 24 * hour, &[]), []);
    // one that is missed each night is told of each night
    let records = said(vec![nightly(None)], vec![], 48 * hour, &[]);
    assert_eq!(outline(&records), ["52200000 firing 1 backup backup", "138600000 firing 1 backup backup"]);
    // a run that began in time may take its time, and not more
    let began = |max_run| said(vec![nightly(Some(Span::seconds(max_run)))], vec![ping(14 * hour + MINUTE, What::Start)], 20 * hour, &[]);
    assert_eq!(began(6 * 3600), []);
    let late = began(2 * 3600);
    assert_eq!(late[0].title, "backup has been running for 2 h (2 h allowed)");
    // who was away at that time waits for the next
    assert_eq!(said(vec![nightly(None)], vec![ping(0, What::Success)], 37 * hour, &[(13 * hour + 45 * MINUTE, 15 * hour)]), []);
}

#[test]
fn runs_that_overlap_are_told_apart_by_their_ids() {
    let job = || Heartbeat { max_run: Some(Span::seconds(100)), ..Heartbeat::new("job", Span::seconds(3600)) };
    let step = |at: i64, run: &str, what| ping_from(&format!("job#{run}"), at, what, "");
    // the first does not end; that the second does says nothing about it
    let steps = vec![
        step(0, "a", What::Start),
        step(50_000, "b", What::Start),
        step(90_000, "b", What::Success),
        step(150_000, "c", What::Start),
        step(160_000, "c", What::Success),
        step(200_000, "a", What::Success),
    ];
    let records = said(vec![job()], steps.clone(), 5 * MINUTE, &[]);
    assert_eq!(outline(&records), ["100000 firing 1 job job", "200000 resolved clear job job"]);
    assert_eq!(records[0].title, "job has been running for 1 min 40 s (1 min 40 s allowed)");
    assert!(records[1].description.ends_with("the run took 3 min 20 s"), "{}", records[1].description);
    // a ping that does not say which run it ends, ends all
    let steps = vec![steps[0].clone(), steps[1].clone(), ping_from("job", 90_000, What::Success, "")];
    assert_eq!(said(vec![job()], steps, 5 * MINUTE, &[]), []);
    // more than are followed do no harm
    let flood = (0..100).map(|n| step(n, &n.to_string(), What::Start)).chain([ping_from("job", 200, What::Success, "")]);
    assert_eq!(said(vec![job()], flood.collect(), 5 * MINUTE, &[]), []);
}

#[test]
fn a_note_changes_nothing() {
    let steps = (0..40).map(|n| ping(n * 10_000, What::Log)).collect();
    assert_eq!(outline(&said(vec![backup()], steps, 7 * MINUTE, &[])), ["360000 firing 1 backup backup"]);
}

#[test]
fn an_inverted_alert_lives_by_its_firing_and_dies_of_silence_or_its_resolve() {
    let watchdog = || Heartbeat {
        on_alert: vec!["alertname=\"Watchdog\"".parse().unwrap(), "source=~\"prom-.*\"".parse().unwrap()],
        ..Heartbeat::new("prometheus", Span::seconds(60))
    };
    let firing = |at| Step::alert(at, "prom-1", "Watchdog", Firing);
    let mut steps: Vec<Step> = (0..10).map(|n| firing(n * MINUTE)).collect();
    steps.push(Step::alert(9 * MINUTE + 50_000, "prom-1", "HighLoad", Firing));
    steps.push(Step::alert(9 * MINUTE + 50_000, "other", "Watchdog", Firing));
    let records = said(vec![watchdog()], steps.clone(), 11 * MINUTE, &[]);
    assert_eq!(outline(&records), ["630000 firing 1 prometheus prometheus"]);
    assert_eq!(records[0].title, "no ping from prometheus for 1 min 30 s (expected every 1 min, 30 s grace)");
    steps.push(Step::alert(9 * MINUTE + 1, "prom-1", "Watchdog", Resolved));
    steps.push(firing(10 * MINUTE));
    let records = said(vec![watchdog()], steps, 11 * MINUTE, &[]);
    assert_eq!(outline(&records), ["540001 firing 1 prometheus prometheus", "600000 resolved clear prometheus prometheus"]);
    assert_eq!(records[0].title, "prometheus fell silent: the alert that feeds it was resolved by prom-1");
}

#[test]
fn a_metric_or_a_line_can_be_the_sign_of_life() {
    let of = |matchers: [&str; 2]| Heartbeat { on_signal: matchers.map(|text| text.parse().unwrap()).into(), ..backup() };
    let steps =
        |n: i64| vec![Step::metric(n, "db", "rows", 1.0), Step::log(n, "db", "dump finished in 3 s"), Step::log(n, "db", "dump began")];
    for (matchers, expected) in [
        (["__name__=rows", "source=db"], 1),
        (["__message__=~\"dump finished.*\"", "source=db"], 1),
        (["__name__=rows", "source=other"], 0),
    ] {
        let mut detector = detector(vec![of(matchers)]);
        let mut out = Vec::new();
        log_of(&steps(10), |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
        assert_eq!(detector.counts().matched, expected, "{matchers:?}");
    }
}

#[test]
fn who_was_away_does_not_blame_the_heartbeats_for_it() {
    let nightly = || Heartbeat { grace: Some(Span::seconds(3600)), ..Heartbeat::new("backup", Span::seconds(86_400)) };
    let hour = 60 * MINUTE;
    let one = || vec![ping(0, What::Success)];
    // away over the time at which the ping came: the next is due a period and a grace after the return
    let records = said(vec![nightly()], one(), 52 * hour, &[(23 * hour + hour / 2, 25 * hour + hour / 2)]);
    assert_eq!(outline(&records), [format!("{:>6} firing 1 backup backup", 50 * hour + hour / 2)]);
    assert!(records[0].title.starts_with("no ping from backup for 50 h 30 min"), "{}", records[0].title);
    assert!(records[0].description.contains("may have gone unheard"), "{}", records[0].description);
    // back a moment before the deadline
    assert_eq!(said(vec![nightly()], one(), 48 * hour, &[(23 * hour, 25 * hour - 10_000)]), []);
    // away when nothing was due: nothing changes
    let records = said(vec![nightly()], one(), 26 * hour, &[(10 * hour, 12 * hour)]);
    assert_eq!(outline(&records), [format!("{:>6} firing 1 backup backup", 25 * hour)]);
    // a run that was open has its whole time again
    let steps = vec![ping(0, What::Success), ping(hour, What::Start)];
    let records = said(vec![nightly()], steps, 6 * hour, &[(hour + hour / 2, 4 * hour)]);
    assert_eq!(outline(&records), [format!("{:>6} firing 1 backup backup", 5 * hour)]);
    // a moment is no absence
    let records = said(vec![backup()], one(), 7 * MINUTE, &[(5 * MINUTE, 5 * MINUTE + 30_000)]);
    assert_eq!(outline(&records), ["360000 firing 1 backup backup"]);
}

#[test]
fn it_asks_for_ticks_only_while_there_is_something_to_wait_for() {
    let mut idle = detector(vec![]);
    idle.consume(&log_of(&[Step::tick(0)], |_| false)[0], &mut Vec::new());
    assert_eq!(idle.next_due(), None);
    let mut detector = detector(vec![backup()]);
    assert!(detector.next_due().is_some_and(|due| due < ms(0)), "a tick at once, from which it counts");
    detector.consume(&log_of(&[Step::tick(0)], |_| false)[0], &mut Vec::new());
    assert_eq!(detector.next_due(), Some(ms(20_000)));
    detector.consume(&log_of(&[Step::tick(350_000)], |_| false)[0], &mut Vec::new());
    assert_eq!(detector.next_due(), Some(ms(370_000)));
}

#[test]
fn its_standing_can_be_seen() {
    let mut detector = detector(vec![backup(), Heartbeat { paused: true, ..Heartbeat::new("old", Span::seconds(300)) }]);
    let stands = |detector: &Detector, at| detector.standings(ms(at)).map(|stands| stands.standing).collect::<Vec<_>>();
    let mut feed = |steps: &[Step]| {
        log_of(steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut Vec::new()));
        stands(
            &detector,
            match steps.last().unwrap() {
                Step::Signal(at, _) | Step::Tick(at) => at.millis() - ms(0).millis(),
            },
        )
    };
    assert_eq!(feed(&lived(vec![], 0, &[])), [Standing::New, Standing::Paused]);
    assert_eq!(feed(&[ping(10_000, What::Success)]), [Standing::Up, Standing::Paused]);
    assert_eq!(feed(&lived(vec![], 330_000, &[(0, 20_000)])), [Standing::Late, Standing::Paused]);
    assert_eq!(feed(&lived(vec![], 380_000, &[(0, 340_000)])), [Standing::Down, Standing::Paused]);
}

/// What a detector for `new` says after one for `old` saw `before`, as a reload does it.
fn reloaded(old: Vec<Heartbeat>, before: &[Step], new: Vec<Heartbeat>, after: &[Step]) -> Vec<AlertRecord> {
    let mut first = detector(old);
    log_of(before, |_| false).iter().for_each(|entry| first.consume(entry, &mut Vec::new()));
    first.touch();
    let mut second = detector(new);
    for change in first.changed() {
        if let Some(body) = &change.body {
            second.restore(&change.key, body).unwrap();
        }
    }
    say(second, after)
}

#[test]
fn a_reload_keeps_what_is_known_and_ends_what_no_longer_holds() {
    let down = lived(vec![ping(0, What::Success)], 7 * MINUTE, &[]);
    let after: Vec<Step> = lived(vec![], 12 * MINUTE, &[(0, 7 * MINUTE + 1)]);
    let rule_changed = |records: &[AlertRecord]| {
        assert_eq!(records[0].resolved_by, Some(ResolvedBy::RuleChanged));
        outline(records)
    };
    let ended = "430000 resolved rule_changed backup backup";
    // removed, paused, given more time, fed by something else
    assert_eq!(rule_changed(&reloaded(vec![backup()], &down, vec![], &after)), [ended]);
    assert_eq!(rule_changed(&reloaded(vec![backup()], &down, vec![Heartbeat { paused: true, ..backup() }], &after)), [ended]);
    let longer = Heartbeat { period: Some(Span::seconds(600)), ..backup() };
    assert_eq!(rule_changed(&reloaded(vec![backup()], &down, vec![longer], &after)), [ended, "660000 firing 1 backup backup"]);
    let other = Heartbeat { on_alert: vec!["alertname=x".parse().unwrap()], ..backup() };
    assert_eq!(rule_changed(&reloaded(vec![backup()], &down, vec![other], &after)), [ended]);
    // the same, with another key, description and one more beside it
    let same = Heartbeat { key: Some(Secret::new("another-secret-key")), description: "x".to_owned(), ..backup() };
    let added = Heartbeat { id: "added".to_owned(), ..backup() };
    assert!(reloaded(vec![backup()], &down, vec![added, same], &after).is_empty());
    // resumed: it has its whole time again
    let paused = vec![Heartbeat { paused: true, ..backup() }];
    let records = reloaded(paused, &down, vec![backup()], &lived(vec![], 15 * MINUTE, &[(0, 7 * MINUTE + 1)]));
    assert_eq!(outline(&records), ["790000 firing 1 backup backup"]);
    // a run that is under way goes on
    let running = lived(vec![ping(0, What::Success), ping(MINUTE, What::Start)], 90_000, &[]);
    let patient = Heartbeat { max_run: Some(Span::seconds(120)), ..backup() };
    let records = reloaded(vec![backup()], &running, vec![patient], &lived(vec![], 4 * MINUTE, &[(0, 90_001)]));
    assert_eq!(outline(&records), ["180000 firing 1 backup backup"]);
    // given less time, it is down at once
    let shorter = Heartbeat { period: Some(Span::seconds(60)), ..backup() };
    let up = lived(vec![ping(0, What::Success)], 4 * MINUTE, &[]);
    let records = reloaded(vec![backup()], &up, vec![shorter], &lived(vec![], 5 * MINUTE, &[(0, 4 * MINUTE + 1)]));
    assert_eq!(outline(&records), ["250000 firing 1 backup backup"]);
}

#[test]
fn a_ping_of_nobody_is_counted_and_nothing_else() {
    let mut detector = detector(vec![backup()]);
    let mut out = Vec::new();
    log_of(&[ping_from("stranger", 0, What::Fail(None), "")], |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!((out.len(), detector.counts().ignored, detector.counts().open), (0, 1, 1));
}

#[test]
fn a_clock_that_was_set_back_keeps_nobody_waiting() {
    let mut steps = lived(vec![ping(60 * MINUTE, What::Success)], 60 * MINUTE, &[(0, 60 * MINUTE)]);
    steps.extend(lived(vec![], 7 * MINUTE, &[]));
    let records = say(detector(vec![backup()]), &steps);
    assert_eq!(outline(&records), ["360000 firing 1 backup backup"]);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (prop_oneof![Just(0_u64), 0..400_u64, 400..20_000_u64, 20_000..100_000_u64], 0..14_u8);
    proptest::collection::vec(step, 1..120).prop_map(|moves| {
        let mut now = 0;
        let step = |(wait, what): (u64, u8)| {
            now += i64::try_from(wait).unwrap();
            let who = if what % 2 == 0 { "backup" } else { "fast" };
            match what {
                0..6 => Step::tick(now),
                6 => ping_from(if now % 3 == 0 { "fast#r1" } else { "backup" }, now, What::Start, ""),
                7 => ping_from("fast", now, What::Start, ""),
                8 => ping_from(who, now, What::Fail(Some(2)), "oops"),
                9 => Step::alert(now, "prom", "Watchdog", Resolved),
                10 | 11 => Step::alert(now, "prom", "Watchdog", Firing),
                _ => ping_from(if now % 5 == 0 { "fast#r1" } else { who }, now, What::Success, ""),
            }
        };
        moves.into_iter().map(step).collect()
    })
}

fn several() -> Detector {
    let watchdog = Heartbeat { on_alert: vec!["alertname=Watchdog".parse().unwrap()], ..Heartbeat::new("prom", Span::seconds(30)) };
    let still = Heartbeat { paused: true, ..Heartbeat::new("still", Span::seconds(1)) };
    let by_schedule = Heartbeat { period: None, schedule: Some("* * * * *".parse().unwrap()), grace: Some(Span::seconds(5)), ..backup() };
    let by_schedule = Heartbeat { id: "minutely".to_owned(), on_alert: watchdog.on_alert.clone(), ..by_schedule };
    let fast = Heartbeat { max_run: Some(Span::seconds(7)), ..Heartbeat::new("fast", Span::seconds(10)) };
    detector(vec![backup(), fast, watchdog, still, by_schedule])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn neither_cuts_nor_kills_change_what_is_said(steps in steps(), fate in fate()) {
        let whole = say(several(), &steps);
        let survived = survive(several, &steps, &fate);
        prop_assert_eq!(outline(&whole), outline(&survived));
        prop_assert_eq!(&whole, &survived);
        let unique: std::collections::BTreeSet<_> = whole.iter().map(|r| (r.alert.as_str(), r.signal_seq, format!("{:?}", r.transition))).collect();
        prop_assert_eq!(unique.len(), whole.len());
        // an alert that is over was firing, and none fires twice at a time
        for rule in ["backup", "fast", "prom", "minutely"] {
            let mut open = false;
            for record in whole.iter().filter(|record| record.rule == rule) {
                prop_assert_eq!(record.transition == Transition::Resolved && !open, false);
                open = record.transition != Transition::Resolved;
            }
        }
    }
}
