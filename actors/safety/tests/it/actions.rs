//! The catalogue: what is refused, how a plan is made, and what happens when a definition changes.

use std::{collections::BTreeMap, sync::Arc};

use opspilot_kernel::{approval::ApprovalStatus, plan::Risk};
use opspilot_safety::{
    ActionTemplate, Catalogue, Clause, GateError, Needs, ParamSpec, ParamType, Policy, Refusal, RenderError, TierQuorum, command_line,
    render,
};
use serde_json::{Value, json};

use crate::{
    journal::{Fake, facts},
    support::{World, catalogue, refused, template},
};

fn problems(change: impl FnOnce(&mut ActionTemplate)) -> Vec<String> {
    let mut changed = template("restart", Risk::Disruptive);
    change(&mut changed);
    let found = Catalogue::new(vec![changed]).map(|_| ()).err().unwrap_or_default();
    found.into_iter().map(|problem| problem.pointer).collect()
}

fn with_param(spec: ParamSpec) -> Vec<String> {
    problems(|template| drop(template.params.insert("service".to_owned(), spec)))
}

#[test]
fn e5_a_definition_that_could_run_anything_is_refused_with_its_place() {
    assert_eq!(problems(|_| {}), [""; 0]);
    for (program, rest) in
        [("systemctl", "restart"), ("/usr/bin/../bin/ls", "x"), ("{service}", "x"), ("/bin/{service}", "x"), ("/bin/sh", "-c")]
    {
        let found = problems(|template| template.argv = vec![program.to_owned(), rest.to_owned(), "{service}".to_owned()]);
        assert_eq!(found, ["/0/argv/0"], "{program}");
    }
    for slot in ["{service}x", "a{service}b", "{service}{service}", "{ser vice}", "{", "}", "{{service}}", "{}"] {
        let found = problems(|template| template.argv.push(slot.to_owned()));
        assert_eq!(found, ["/0/argv/3"], "{slot}");
    }
    assert_eq!(problems(|template| template.argv.push("{servce}".to_owned())), ["/0/argv/3"]);
    assert_eq!(problems(|template| template.argv.push("--unit={service}".to_owned())), [""; 0]);
    assert_eq!(problems(|template| template.argv.truncate(2)), ["/0/params/service"], "a parameter that changes nothing");
    assert_eq!(problems(|template| template.title = "Restart {other}".to_owned()), ["/0/title"]);
    assert_eq!(problems(|template| template.cwd = "/a/../b".to_owned()), ["/0/cwd"]);
    for name in ["LD_PRELOAD", "BASH_ENV", "PATH", "IFS", "GIT_SSH_COMMAND", "OPSPILOT_TOKEN", "lower"] {
        assert_eq!(problems(|template| template.env = vec![name.to_owned()]), ["/0/env/0"], "{name}");
    }
    assert_eq!(problems(|template| template.argv[0] = "/usr/bin/env\u{202e}".to_owned()), ["/0/argv/0"]);
    assert_eq!(problems(|template| template.id = "Restart It".to_owned()), ["/0/id"]);
    let twice = Catalogue::new(vec![template("a", Risk::Read), template("a", Risk::Read)]).unwrap_err();
    assert_eq!(twice.len(), 1);
}

#[test]
fn an_interpreter_is_allowed_only_where_two_people_agree() {
    let shell = |risk, allowed| {
        problems(|template| {
            template.argv = ["/bin/sh", "-c", "{service}"].map(str::to_owned).to_vec();
            template.risk = risk;
            template.unsafe_interpreter = allowed;
        })
    };
    assert_eq!(shell(Risk::Destructive, true), [""; 0]);
    assert_eq!(shell(Risk::Destructive, false), ["/0/argv/0"]);
    assert_eq!(shell(Risk::Disruptive, true), ["/0/risk"]);
}

#[test]
fn a_parameter_says_all_that_its_type_needs_and_nothing_else() {
    let of = ParamSpec::of;
    for bad in [
        of(ParamType::Enum),
        of(ParamType::Int),
        ParamSpec { min: Some(5), max: Some(1), ..of(ParamType::Int) },
        ParamSpec { min: Some(0), max: Some(i64::MAX), ..of(ParamType::Int) },
        of(ParamType::AbsPath),
        ParamSpec { beneath: Some("/".to_owned()), ..of(ParamType::AbsPath) },
        ParamSpec { beneath: Some("/a/..".to_owned()), ..of(ParamType::AbsPath) },
        of(ParamType::Text),
        ParamSpec { pattern: Some("(".to_owned()), ..of(ParamType::Text) },
        ParamSpec { pattern: Some("a)|(b".to_owned()), ..of(ParamType::Text) },
        ParamSpec { pattern: Some("(x{1000}){1000}".to_owned()), ..of(ParamType::Text) },
        ParamSpec { pattern: Some("x".to_owned()), ..of(ParamType::Hostname) },
        ParamSpec { leading_dash: true, ..of(ParamType::UnitName) },
    ] {
        assert!(!with_param(bad.clone()).is_empty(), "{bad:?}");
    }
}

fn filled(spec: ParamSpec, value: Value) -> Result<Vec<String>, RenderError> {
    let mut one = template("restart", Risk::Read);
    one.params.insert("service".to_owned(), spec);
    let catalogue = Catalogue::new(vec![one]).unwrap();
    let params = BTreeMap::from([("service".to_owned(), value)]);
    render(catalogue.get("restart").unwrap(), &params, &Policy::default(), &facts(&Needs::of(catalogue.iter())))
        .map(|rendered| rendered.plan.argv)
}

#[test]
fn e5_a_hostile_value_is_refused_or_stands_there_as_it_is() {
    let of = ParamSpec::of;
    let text = |pattern: &str| ParamSpec { pattern: Some(pattern.to_owned()), ..of(ParamType::Text) };
    let refused: Vec<(ParamSpec, Vec<Value>)> = vec![
        (
            of(ParamType::UnitName),
            ["--config=/x", "-o", ";id", "$(id)", "`id`", "a\nb", "a\0b", "", "a b", "*", "../x", "\u{2010}x", "a\u{202e}b", ".hidden"]
                .map(Value::from)
                .to_vec(),
        ),
        (of(ParamType::UnitName), vec![json!("x".repeat(1 << 20)), json!(null), json!([]), json!({}), json!(1.5), json!(true)]),
        (of(ParamType::Hostname), ["-a", "a-", "a..b", "a_b", "a/b", "ä"].map(Value::from).to_vec()),
        (of(ParamType::K8sName), ["Pod", "a/b", "a:b"].map(Value::from).to_vec()),
        (
            ParamSpec { beneath: Some("/var/log".to_owned()), ..of(ParamType::AbsPath) },
            ["/etc/passwd", "/var/log/../x", "/var/logs/x", "/var/log", "/var/log/", "/var/log//x", "/var/log/./x", "x"]
                .map(Value::from)
                .to_vec(),
        ),
        (
            ParamSpec { min: Some(0), max: Some(9), ..of(ParamType::Int) },
            vec![json!(10), json!(-1), json!("07"), json!("+7"), json!("7 "), json!("0x7"), json!(u64::MAX), json!("9e9")],
        ),
        (
            ParamSpec { max: Some(60), ..of(ParamType::Duration) },
            ["61s", "2m", "1.5s", "60", "060s", "-1s", "6 0s", " 6s", "s"].map(Value::from).to_vec(),
        ),
        (ParamSpec { values: vec!["a".to_owned(), "b".to_owned()], ..of(ParamType::Enum) }, ["c", "A", "a ", ""].map(Value::from).to_vec()),
        (text("[a-z]+"), ["abc\n", "ABC", "-abc", "abcabcabc1"].map(Value::from).to_vec()),
        (text("a|b"), ["ab", "xb", "ax"].map(Value::from).to_vec()),
    ];
    for (spec, values) in refused {
        for value in values {
            let outcome = filled(spec.clone(), value.clone());
            assert!(matches!(outcome, Err(RenderError::Params(_))), "{spec:?} took {value}");
            let said = outcome.unwrap_err().to_string();
            let shown = value.as_str().filter(|text| text.len() > 3 && spec.beneath.is_none());
            assert!(shown.is_none_or(|text| !said.contains(text)), "what was sent is repeated: {said}");
        }
    }
    for (spec, value, argument) in [
        (of(ParamType::UnitName), json!("getty@tty1.service"), "getty@tty1.service"),
        (of(ParamType::Hostname), json!("db-7.example.org"), "db-7.example.org"),
        (of(ParamType::K8sName), json!("checkout-5d"), "checkout-5d"),
        (ParamSpec { beneath: Some("/var/log".to_owned()), ..of(ParamType::AbsPath) }, json!("/var/log/a b/$x"), "/var/log/a b/$x"),
        (ParamSpec { min: Some(-5), max: Some(5), ..of(ParamType::Int) }, json!(-5), "-5"),
        (ParamSpec { min: Some(-5), max: Some(5), ..of(ParamType::Int) }, json!("3"), "3"),
        (ParamSpec { values: vec!["--dry-run".to_owned()], ..of(ParamType::Enum) }, json!("--dry-run"), "--dry-run"),
        (of(ParamType::Duration), json!("90s"), "90s"),
        (text(".*"), json!("$(id); `x` *"), "$(id); `x` *"),
        (ParamSpec { leading_dash: true, ..text("-[a-z]") }, json!("-v"), "-v"),
    ] {
        let argv = filled(spec, value).unwrap();
        assert_eq!(argv[2], argument, "one argument, as it stands");
        assert_eq!(argv.len(), 3);
    }
}

#[test]
fn a_plan_is_the_same_for_everybody_and_its_line_is_read_in_one_way() {
    let catalogue = catalogue();
    let action = catalogue.get("restart").unwrap();
    let params = BTreeMap::from([("service".to_owned(), json!("checkout"))]);
    let facts = facts(&Needs::of([action]));
    let rendered = |params: &BTreeMap<String, Value>| render(action, params, &Policy::default(), &facts);
    let (one, two) = (rendered(&params).unwrap(), rendered(&params).unwrap());
    assert_eq!((one.bytes, one.digest), (two.bytes.clone(), two.digest));
    assert_eq!(opspilot_kernel::plan::PlanDigest::of(&two.bytes), two.digest);
    let argv = ["/bin/echo", "plain", "a b", "it's", "", "$x;`y`", "naïve", "\\"].map(str::to_owned);
    assert_eq!(command_line(&argv), r"/bin/echo plain 'a b' 'it'\''s' '' '$x;`y`' $'na\U000000EFve' '\'");
    let missing = rendered(&BTreeMap::new()).unwrap_err();
    assert_eq!(missing.to_string(), "the parameters do not fit the action: service is missing");
    let unknown = BTreeMap::from([("service".to_owned(), json!("a")), ("servce".to_owned(), json!("b"))]);
    let Err(RenderError::Params(bad)) = rendered(&unknown) else { panic!() };
    assert_eq!((bad.len(), bad[0].suggestion.as_deref()), (1, Some("service")));
}

#[actix::test]
async fn what_the_catalogue_does_not_have_is_not_proposed() {
    let world = World::new().await;
    let by = || opspilot_kernel::approval::Proposer::User("ada".to_owned());
    let outcome = world.propose_as(by(), "restrat", json!({})).await;
    assert!(matches!(outcome, Err(GateError::NoSuchAction { closest: Some(meant) }) if meant == "restart"));
    assert!(matches!(world.propose_as(by(), "restart", json!({})).await, Err(GateError::Render(_))));
    world.gate.set_catalogue(None).await.unwrap();
    assert_eq!(refused(world.propose_as(by(), "restart", json!({ "service": "x" })).await), Refusal::NoExecutor);
    world.stop().await;
}

/// The catalogue with another timeout for every action.
fn edited() -> Catalogue {
    let all = catalogue();
    let changed = all.iter().map(|action| {
        let mut template = action.template().clone();
        template.timeout = opspilot_kernel::config::Span::seconds(31);
        template
    });
    Catalogue::new(changed.collect()).unwrap()
}

#[actix::test]
async fn t7_an_edited_definition_ends_what_was_shown_before() {
    let world = World::new().await;
    let (waits, approved) = (world.propose_n(1).await, world.propose_n(2).await);
    let token = world.approved(&approved).await;
    world.gate.set_catalogue(Some(Arc::new(edited()))).await.unwrap();
    assert_eq!(world.get(&waits.id).await.status, ApprovalStatus::Superseded);
    assert_eq!(world.get(&approved.id).await.status, ApprovalStatus::Revoked);
    assert_eq!(refused(world.approve_as(crate::support::bob(), &waits).await), Refusal::PlanChanged);
    assert_eq!(refused(world.execute(&approved, &token).await), Refusal::PlanChanged);
    assert_eq!(world.journal.starts().len(), 0);
    world.stop().await;
}

#[actix::test]
async fn t7_the_same_catalogue_again_changes_nothing() {
    let world = World::new().await;
    let (waits, approved) = (world.propose_n(1).await, world.propose_n(2).await);
    let token = world.approved(&approved).await;
    world.gate.set_catalogue(Some(Arc::new(catalogue()))).await.unwrap();
    world.gate.set_policy(Policy::default()).await.unwrap();
    assert_eq!(world.get(&waits.id).await.status, ApprovalStatus::Pending);
    world.execute(&approved, &token).await.unwrap();
    world.stop().await;
}

#[actix::test]
async fn t7_edited_between_the_approval_and_the_start_while_the_service_is_down() {
    let world = World::new().await;
    let approval = world.propose("restart").await;
    let token = world.approved(&approval).await;
    let (dir, clock) = world.stop().await;
    let world = World::bare(dir, clock, Policy::default());
    // nobody offers a catalogue yet: nothing is said about the plan, and nothing runs
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::NoExecutor);
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Approved);
    world.gate.set_catalogue(Some(Arc::new(edited()))).await.unwrap();
    // nor while nobody would carry it out: what it depends on is the executor's to say
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::NoExecutor);
    let executor = Arc::new(Fake(Arc::clone(&world.journal)));
    world.gate.register(opspilot_kernel::plan::Executor::Process, executor).await.unwrap();
    assert_eq!(world.get(&approval.id).await.status, ApprovalStatus::Revoked, "looked at as soon as it can be");
    assert_eq!(refused(world.execute(&approval, &token).await), Refusal::PlanChanged);
    world.stop().await;
}

#[actix::test]
async fn t7_a_stricter_policy_ends_what_was_approved_under_the_old_one() {
    let world = World::new().await;
    let (mild, other) = (world.propose("restart").await, world.propose("look").await);
    let (token, of_other) = (world.approved(&mild).await, world.approved(&other).await);
    let require = vec![Clause { group: Some("sre".to_owned()), n: 1 }];
    let policy = Policy { quorum: vec![TierQuorum { tier: Risk::Disruptive, require }], ..Policy::default() };
    world.gate.set_policy(policy).await.unwrap();
    assert_eq!(refused(world.execute(&mild, &token).await), Refusal::PlanChanged);
    world.execute(&other, &of_other).await.unwrap();
    // and from now on only that group will do, a viewer in it as well
    let again = world.propose("restart").await;
    let bobs = world.approve_as(crate::support::bob(), &again).await.unwrap();
    assert!(matches!(bobs, opspilot_safety::Decision::Pending(_)), "an operator of another group is not enough");
    let dora = crate::support::who("dora", opspilot_kernel::principal::Role::Viewer, &["sre"]);
    assert!(matches!(world.approve_as(dora, &again).await.unwrap(), opspilot_safety::Decision::Approved(..)));
    world.stop().await;
}
