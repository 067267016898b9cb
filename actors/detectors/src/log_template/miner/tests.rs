use super::{Fate, Learned, Miner, Settings, TemplateId};

fn texts(lines: &[&str]) -> Vec<String> {
    let mut miner = Miner::new(&Settings::default());
    let ids: Vec<TemplateId> = lines.iter().map(|line| miner.learn(line).template).collect();
    ids.into_iter().map(|id| miner.template(id).unwrap().to_owned()).collect()
}

#[test]
fn data_in_a_line_becomes_a_named_mask() {
    for (line, expected) in [
        ("took 12 ms", "took <NUM>"),
        ("took 12ms, then 3.5 KB.", "took <NUM>, then <NUM>."),
        ("load -0.75 is +3% of 1,234", "load <NUM> is <NUM> of <NUM>"),
        ("from 10.1.2.3:5123 to /192.168.0.1:80", "from <IP> to /<IP>"),
        ("10.1.2.3.4 and 1.2.3", "<NUM> and <NUM>"),
        ("at 2026-11-23T10:00:00.123Z", "at <NUM>"),
        ("2026-11-23 10:00:00,123 up", "<NUM> … up"),
        ("Mon Nov 23 10:00:00 2026", "<DATE> … <NUM> …"),
        ("trace=4bf92f3577b34da6a3ce929d0e0e4736", "trace=<HEX>"),
        ("address 0xDEADbeef", "address <HEX>"),
        ("id 550e8400-e29b-41d4-a716-446655440000 gone", "id <UUID> gone"),
        ("id deadbeef-cafe-babe-feed-facefacefade gone", "id deadbeef-cafe-babe-feed-facefacefade gone"),
        ("peer fe80::1ff:fe23:4567:890a left", "peer <IP> left"),
        ("node17 runs on x86_64", "node<NUM> runs on x<NUM>_<NUM>"),
        ("session q7x2k9z1 opened", "session <ID> opened"),
        ("block blk_-1608999687919862906 lost", "block blk_<NUM> lost"),
        ("p=1.5e-05 and 3e8", "p=<NUM> and <NUM>"),
        ("sent 2048 bytes (2 KB) in <1 sec", "sent <NUM> in <NUM>"),
        ("blocks blk_1 blk_2 blk_3 deleted", "blocks blk_<NUM> … deleted"),
        ("user=7 by LOGIN(uid=0)", "user=<NUM> by LOGIN(uid=<NUM>)"),
        ("a == b, c=", "a == b, c="),
        ("größe 17 straße\u{fffd}", "größe <NUM> straße\u{fffd}"),
        ("", ""),
        (" \t\u{0} ", ""),
    ] {
        assert_eq!(texts(&[line]), [expected], "{line}");
    }
}

#[test]
fn one_statement_is_one_template_whatever_its_data() {
    let same = texts(&["took 12 ms", "took 4 s", "took 1.5 min", "took 99"]);
    assert!(same.iter().all(|text| text == "took <NUM>"), "{same:?}");
    let lists = texts(&["delete blk_1 blk_2", "delete blk_1 blk_2 blk_3 blk_4"]);
    assert_eq!(lists[0], lists[1]);
    let keys = texts(&["setSteps=12", "setGoal=12"]);
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn four_different_words_in_one_place_are_data_and_three_are_not() {
    let line = |user: &str| format!("session opened for user {user} by (uid=0)");
    let mut miner = Miner::new(&Settings::default());
    let learned: Vec<Learned> = ["root", "news", "cyrus"].iter().map(|user| miner.learn(&line(user))).collect();
    assert!(learned.iter().all(|one| one.is_new));
    assert_eq!(miner.len(), 3);
    let fourth = miner.learn(&line("test"));
    assert_eq!(fourth, Learned { template: learned[0].template, is_new: false }, "it completes the family and keeps its oldest id");
    assert_eq!(miner.learn(&line("somebody")), fourth);
    assert_eq!(miner.len(), 1);
    for one in learned {
        assert_eq!(miner.current(one.template), fourth.template);
        assert_eq!(miner.template(one.template), Some("session opened for user <*> by (uid=<NUM>)"));
    }
    assert!(miner.learn("session opened for user root by LOGIN(uid=0)").is_new);
}

#[test]
fn what_differs_in_a_constant_stays_apart_when_its_data_is_found() {
    let mut miner = Miner::new(&Settings::default());
    for end in ["over HTTPS now", "over SOCKS5 now"] {
        for host in ["ant.example.org", "bee.example.org", "cow.example.org", "dog.example.org", "eel.example.org"] {
            miner.learn(&format!("the host named {host} open through the local proxy {end}"));
        }
    }
    let mut found: Vec<&str> = miner.store.texts().collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "the host named <*> open through the local proxy over HTTPS now",
            "the host named <*> open through the local proxy over SOCKS<NUM> now"
        ]
    );
}

#[test]
fn paths_that_differ_are_data_at_once() {
    let found = texts(&["Deleting file /data/current/sub1/a_7", "Deleting file /data/current/b_8", "Deleting file /data/c"]);
    assert_eq!(found[0], "Deleting file <*>");
    assert_eq!(found[0], found[1]);
    assert_eq!(found[2], "Deleting file <*>");
    let other = texts(&["Deleting file /data/current/sub1/a_7", "Deleting file /data/current/b_8", "Deleting file failed"]);
    assert_eq!(other[2], "Deleting file failed", "in so short a line a word is no path");
}

#[test]
fn in_a_line_of_few_words_it_takes_sixteen_to_be_data() {
    let mut miner = Miner::new(&Settings::default());
    let line = |n: usize| format!("login failed: {}", "x".repeat(n + 1));
    assert!((0..15).all(|n| miner.learn(&line(n)).is_new));
    assert!(!miner.learn(&line(15)).is_new && !miner.learn(&line(16)).is_new);
    assert_eq!(miner.len(), 1);
}

#[test]
fn lines_that_are_nothing_but_data_take_in_no_others() {
    let mut miner = Miner::new(&Settings::default());
    let ids: Vec<TemplateId> = ["17", "/var/log/a/b", "10.0.0.1", "STOPPED"].iter().map(|line| miner.learn(line).template).collect();
    assert_eq!((miner.len(), miner.template(ids[3])), (4, Some("STOPPED")));
}

#[test]
fn what_becomes_of_templates_is_told_to_who_asks() {
    let mut miner = Miner::new(&Settings { max_templates: 16, ..Settings::default() });
    miner.track();
    let ids: Vec<TemplateId> =
        ["a", "b", "c", "d"].iter().map(|user| miner.learn(&format!("one two three four {user}")).template).collect();
    let merged = |from: usize| Fate::Merged { from: ids[from], into: ids[0] };
    let never = miner.learn("one two three four d").template;
    assert_eq!(never, ids[3]);
    let mut fates = miner.take_fates();
    fates.sort_by_key(|fate| format!("{fate:?}"));
    let mut expected = [merged(1), merged(2)];
    expected.sort_by_key(|fate| format!("{fate:?}"));
    assert!(expected.iter().all(|one| fates.contains(one)), "{fates:?}");
    for n in 0..40 {
        miner.learn(&"x ".repeat(n + 10));
    }
    assert!(miner.take_fates().iter().all(|fate| matches!(fate, Fate::Evicted(_))));
    assert!(miner.len() <= 16 && miner.evicted() >= 25, "{} {}", miner.len(), miner.evicted());
}
