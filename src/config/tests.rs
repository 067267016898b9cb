//! What a person who made mistakes is told, and what a person who made none gets.

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Secret, Size, Span},
    module::ModuleId,
};
use opspilot_runtime::{Entry, StartError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    rules: Vec<Rule>,
    /// Where it listens.
    #[schemars(extend("format" = "listen-address"))]
    tcp: Option<String>,
    /// What it signs with; a file that is
    /// read by nobody else. More about it.
    key: Option<Secret>,
    /// Others' keys.
    keys: Vec<Other>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Other {
    /// Whose key it is, by the name
    /// that they were given. Nothing else.
    whose: String,
    token: Secret,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The rule's name.
    id: String,
    /// What a line must hold.
    pattern: String,
    #[serde(default)]
    severity: opspilot_kernel::signal::Severity,
    #[serde(default = "half_a_minute")]
    cooldown: Span,
    #[serde(default)]
    cap: Option<u32>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Mode {
    #[default]
    Plain,
    Multi {
        lines: u32,
    },
}

fn half_a_minute() -> Span {
    Span::seconds(30)
}

impl ModuleConfig for Rules {
    fn validate(&self) -> Vec<Problem> {
        let bad = |(index, rule): (usize, &Rule)| {
            let error = regex::Regex::new(&rule.pattern).err()?;
            Some(Problem::at(format!("/rules/{index}/pattern"), format!("does not compile: {error}")))
        };
        let high = |(index, rule): (usize, &Rule)| {
            let above = rule.cap.is_some_and(|cap| rule.cooldown.0.as_secs() > u64::from(cap));
            above.then(|| Problem::at(format!("/rules/{index}/cooldown"), "must not be above cap"))
        };
        let rules = || self.rules.iter().enumerate();
        rules().filter_map(bad).chain(rules().filter_map(high)).collect()
    }
}

fn check(json: serde_json::Value) -> Vec<Problem> {
    match serde_json::from_value::<Rules>(json) {
        Ok(rules) => rules.validate(),
        Err(error) => vec![Problem::at("", error.to_string())],
    }
}

fn entry(id: &'static str) -> Entry {
    Entry {
        id: ModuleId::new(id),
        summary: "",
        enabled_by_default: true,
        schema: |generator| generator.subschema_for::<Rules>(),
        defaults: || serde_json::json!({}),
        check,
        start: |_, _| Err(StartError::Failed("never started".to_owned())),
        offline: None,
    }
}

fn sources(text: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opspilot.yaml");
    std::fs::write(&path, text).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    (dir, Sources { file: Some(path), variables, flags: Flags::default() })
}

fn loaded(text: &str, variables: &[(&str, &str)]) -> Result<Config, Report> {
    let (_dir, sources) = sources(text, variables);
    let (one, two) = (entry("detector.regex"), entry("connector.syslog"));
    load(&sources, &[&one, &two])
}

/// `place message — suggestion` of everything that is wrong.
fn complaints(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let report = loaded(text, variables).expect_err("a mistake should be found");
    let line = |f: &Finding| format!("{} {} — {}", f.place, f.message, f.suggestion.clone().unwrap_or_default());
    report.findings.iter().map(line).collect()
}

#[test]
fn without_a_file_everything_has_a_safe_default() {
    let one = entry("detector.regex");
    let config = load(&Sources::default(), &[&one]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3000");
    assert_eq!(config.ledger.dir, std::path::PathBuf::from("./data"));
    assert_eq!(config.ledger.retention.signals_days, 7);
    assert_eq!(config.ledger.retention.events_max_bytes, Size(1 << 30));
    assert!(config.modules[&ModuleId::new("detector.regex")].enabled);
}

#[test]
fn every_mistake_is_named_at_once_with_its_line_column_and_a_suggestion() {
    let text = "\
server:
  lisen: '127.0.0.1:3000'
ledger:
  retention: {signals_days: many, signals_max_bytes: 10GB}
log: {format: jsn}
modules:
  detector.regexp: {}
  detector.regex:
    enabled: yes
    rules:
      - id: a
        patern: 'x'
      - id: a
        pattern: '(unclosed'
        severity: criticl
        cooldown: 30
        cap: -1
      - pattern: x
        labels: {a: 1, b: [2]}
        mode: {type: mutli}
";
    let found = complaints(text, &[]);
    let expected = [
        "2:3 unknown key `lisen` — did you mean `listen`?",
        "4:29 a whole number expected, `many` found — ",
        "4:54 `10GB` is not a size — write a number and a unit: 512B, 64KiB, 10MiB or 2GiB",
        "5:15 `jsn` is not known here — did you mean `json`?",
        "7:3 unknown key `detector.regexp` — did you mean `detector.regex`?",
        "9:14 `yes` is not true or false — write true",
        "12:9 unknown key `patern` — did you mean `pattern`?",
        "13:13 duplicate id `a` — it is already used at 11:13",
        "15:19 `criticl` is not known here — did you mean `critical`?",
        "16:19 `30` is not a duration — write a number and a unit: 500ms, 30s, 5m, 2h or 7d",
        "17:14 -1 is out of range — write a whole number from 0 to 4294967295",
        "18:9 `id` is missing — id: The rule's name.",
        "19:27 text expected, a list found — ",
        "20:22 `mutli` is not known here — did you mean `multi`?",
    ];
    for line in expected {
        assert!(found.iter().any(|f| f == line), "missing: {line}\nfound:\n{}", found.join("\n"));
    }
    let compile = found.iter().filter(|f| f.starts_with("14:18 does not compile")).count();
    assert_eq!(compile, 1, "the module judges what no schema can say, though other values are wrong");
    assert_eq!(found.len(), expected.len() + 1, "nothing else is said:\n{}", found.join("\n"));
}

#[test]
fn what_must_be_free_after_a_full_disk_is_neither_nothing_nor_more_than_any_disk_has() {
    let config = loaded("ledger: {headroom: 1MiB, heal_after: 1h}\n", &[]).unwrap();
    assert_eq!((config.ledger.headroom, config.ledger.heal_after), (Size::mib(1), Span::seconds(3600)));
    let room = "write at least 1MiB and at most 1024GiB, such as 16MiB";
    let time = "write at least 1s and at most 1h, such as 10s";
    for (headroom, heal_after) in [("1KiB", "999ms"), ("1025GiB", "2h")] {
        assert_eq!(
            complaints(&format!("ledger:\n  headroom: {headroom}\n  heal_after: {heal_after}\n"), &[]),
            [
                format!("2:13 {headroom} is no room to go on in after a full disk — {room}"),
                format!("3:15 {heal_after} is no time to see in whether a full disk stays free — {time}"),
            ]
        );
    }
}

#[test]
fn what_is_wrong_is_said_once_and_nothing_is_judged_against_a_stand_in() {
    let rule = |rest: &str| format!("modules: {{detector.regex: {{rules: [{{id: a, pattern: x, {rest}}}]}}}}");
    assert_eq!(complaints(&rule("cap: 3, cooldown: 5s"), &[]), ["1:74 must not be above cap — "]);
    assert_eq!(complaints(&rule("cap: -3, cooldown: 5s"), &[]).len(), 1, "the cap is wrong, so nothing is compared with it");
}

#[test]
fn the_environment_wins_over_the_file_and_flags_win_over_both() {
    let text = "server: {listen: '127.0.0.1:1'}\n";
    let config = loaded(text, &[("OPSPILOT__SERVER__LISTEN", "127.0.0.1:2"), ("OPSPILOT__LEDGER__RETENTION__SIGNALS_DAYS", "3")]).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.ledger.retention.signals_days, 3);
    let (_dir, mut sources) = sources(text, &[("OPSPILOT__SERVER__LISTEN", "127.0.0.1:2")]);
    sources.flags.listen = Some("127.0.0.1:3".into());
    sources.flags.data = Some("/tmp/elsewhere".into());
    let config = load(&sources, &[]).unwrap();
    assert_eq!((config.server.listen.port(), config.ledger.dir.display().to_string()), (3, "/tmp/elsewhere".into()));
}

#[test]
fn variables_reach_lists_and_modules_and_their_mistakes_bear_their_name() {
    let config = loaded(
        "",
        &[
            ("OPSPILOT__SERVER__TRUSTED_PROXIES", "['10.0.0.0/8', 192.168.1.1]"),
            ("OPSPILOT__SERVER__LISTEN", "0.0.0.0:80"),
            ("OPSPILOT__MODULES__CONNECTOR_SYSLOG__ENABLED", "false"),
            ("OPSPILOT_TOKEN", "not configuration"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert!(!config.modules[&ModuleId::new("connector.syslog")].enabled);
    let found = complaints("", &[("OPSPILOT__SERVER__LISTN", "x"), ("OPSPILOT__LOG__LEVEL", "verbose")]);
    assert_eq!(
        found,
        [
            "environment variable OPSPILOT__LOG__LEVEL `verbose` is not known here — one of error, warning, info, debug",
            "environment variable OPSPILOT__SERVER__LISTN unknown part `LISTN` — did you mean `LISTEN`?",
        ]
    );
}

#[test]
fn beyond_loopback_needs_tls_a_trusted_proxy_or_consent() {
    let found = complaints("server:\n  listen: 0.0.0.0:3000\n", &[]);
    assert!(found[0].starts_with("2:11 0.0.0.0:3000 is reachable from other machines"), "{found:?}");
    assert!(loaded("server: {listen: '0.0.0.0:3000', insecure: true}", &[]).is_ok());
    assert!(loaded("server: {listen: '[::1]:3000'}", &[]).is_ok());
    let found = complaints("server: {listen: '0.0.0.0:3000', tls: {cert: /no/such, key: /no/such}}", &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(complaints("server: {listen: 'localhost:3000'}", &[])[0].contains("not an address and a port"));
}

#[test]
fn two_modules_on_one_port_are_found() {
    let text = "\
server: {listen: '127.0.0.1:3000'}
modules:
  detector.regex: {tcp: '0.0.0.0:1514'}
  connector.syslog: {tcp: '127.0.0.1:1514'}
";
    let found = complaints(text, &[]);
    assert_eq!(found, ["4:27 127.0.0.1:1514 (tcp) is taken already — modules.detector.regex.tcp listens there; choose another port"]);
    assert!(loaded(&text.replace("connector.syslog: {", "connector.syslog: {enabled: false, "), &[]).is_ok());
    assert!(complaints("modules: {connector.syslog: {tcp: '127.0.0.1:3000'}}", &[])[0].contains("server.listen listens there"));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let sources = Sources { file: Some("/no/such/file.yaml".into()), ..Sources::default() };
    let report = load(&sources, &[]).expect_err("no file");
    assert!(report.to_string().starts_with("/no/such/file.yaml: cannot read the file"), "{report}");
    let (dir, sources) = self::sources("", &[]);
    std::fs::write(dir.path().join("opspilot.yaml"), b"server: {}\n# \xff\n").unwrap();
    let report = load(&sources, &[]).expect_err("not UTF-8");
    assert_eq!(report.findings[0].place, Place::File { line: 2, column: 3 });
    assert!(report.to_string().contains("| # \u{fffd}\n       |   ^ save the file as UTF-8"), "{report}");
}

#[test]
fn what_is_commented_out_means_the_defaults() {
    let config = loaded("server:\n#  listen: x\nmodules:\n  detector.regex:\n#   rules: []\n", &[]).unwrap();
    assert_eq!(config.server, Server::default());
}

#[test]
fn the_schema_names_every_section_and_module() {
    let one = entry("detector.regex");
    let schema = document(&[&one]);
    for name in ["server", "ledger", "outbound", "policy", "log", "limits", "modules"] {
        assert!(schema["properties"][name].is_object(), "{name}");
    }
    assert_eq!(schema["properties"]["modules"]["properties"]["detector.regex"]["properties"]["enabled"]["type"], "boolean");
}

#[test]
fn a_network_that_is_none_is_found_at_its_item() {
    let found = complaints("server:\n  trusted_proxies:\n    - 10.0.0.0/8\n    - 10.0.0.0/33\n", &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("4:7 `10.0.0.0/33` is neither an address nor a network"), "{found:?}");
    let report = loaded("outbound: {allow_private: [x]}", &[]).unwrap_err();
    assert_eq!(report.findings[0].pointer, "/outbound/allow_private/0");
}

#[test]
fn a_hint_is_a_whole_sentence() {
    let found = complaints("modules: {detector.regex: {keys: [{token: abcdefgh}]}}", &[]);
    assert_eq!(found, ["1:35 `whose` is missing — whose: Whose key it is, by the name that they were given."]);
}

#[test]
fn sessions_are_as_long_as_somebody_wants_within_reason() {
    let config = loaded("server: {session: {idle: 2h}}", &[("OPSPILOT__SERVER__SESSION__ABSOLUTE", "30d")]).unwrap();
    assert_eq!(config.server.session, Session { idle: Span::seconds(7200), absolute: Span::seconds(30 * 86_400) });
    for wrong in ["idle: 1s", "idle: 13h", "absolute: 10m", "absolute: 365d"] {
        assert_eq!(complaints(&format!("server: {{session: {{{wrong}}}}}"), &[]).len(), 1, "{wrong}");
    }
}

/// Everything that can be said of a configuration.
fn all_that_is_said(text: &str, variables: &[(&str, &str)]) -> String {
    let (_dir, sources) = sources(text, variables);
    let one = entry("detector.regex");
    match load(&sources, &[&one]) {
        Ok(config) => format!("{sources:?} {config:?} {config:#?}"),
        Err(report) => {
            let lines: Vec<String> = report.findings.iter().map(|finding| report.line(finding)).collect();
            let views = serde_json::to_string(&report.views()).unwrap();
            format!("{sources:?} {report} {report:?} {report:#?} {lines:?} {views}")
        }
    }
}

#[test]
fn a_secret_is_read_where_it_is_and_is_in_nothing_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "hunter2-of-the-file\n").unwrap();
    let named =
        format!("modules: {{detector.regex: {{key: 'file:{}', keys: [{{whose: x, token: '${{CARGO_PKG_NAME}}'}}]}}}}", file.display());
    let config = loaded(&named, &[]).unwrap();
    let module = &config.modules[&ModuleId::new("detector.regex")];
    let rules: Rules = serde_json::from_value(module.config.clone()).unwrap();
    assert_eq!(rules.key.as_ref().map(Secret::expose), Some("hunter2-of-the-file"));
    assert_eq!(rules.keys[0].token.expose(), "opspilot");
    assert!(format!("{module:?}").contains(r#""key": String("***")"#), "{module:?}");

    let good = "modules: {detector.regex: {key: hunter2-literal, keys: [{whose: x, token: hunter2-too}]}}";
    let wrong = [
        // another mistake on the same line, one before it, and one in it
        "modules: {detector.regex: {kye: hunter2-misspelt, key: hunter2-literal, enabled: hm}}",
        "modules:\n  detector.regex:\n    rules: [{id: hunter2-literal, pattern: '(hunter2-literal'}]\n    key: hunter2-literal\n",
        "modules: {detector.regex: {keys: [{whose: x, token: hunter2-literal, more: hunter2-other}]}}",
        "modules: {detector.regex: {keys: [{whos: hunter2-misspelt, token: [hunter2-literal]}]}}",
        "modules: {detector.regex: {key: '${hunter2'}}",
        // no YAML at all
        "modules:\n  detector.regex:\n    key: \"hunter2-literal\n",
        "modules:\n  detector.regex:\n    key: |\n      hunter2-one\n      hunter2-two\n     - : hunter2\n    keys: [}\n",
        "modules: {detector.regex: {key: hunter2-literal}}\nmodules: {detector.regex: {key: hunter2-literal}}",
        "modules: {detector.regex: {key: hunter2-literal\u{7}}",
    ];
    assert!(!all_that_is_said(good, &[]).contains("hunter2"), "{}", all_that_is_said(good, &[]));
    assert!(!all_that_is_said(&named, &[]).contains("hunter2"));
    for text in wrong {
        let said = all_that_is_said(text, &[]);
        assert!(loaded(text, &[]).is_err() && !said.contains("hunter2"), "{text}\n{said}");
    }
    let variables = [("OPSPILOT__MODULES__DETECTOR_REGEX__KEY", "hunter2-variable"), ("OPSPILOT__LOG__LEVEL", "hm")];
    assert!(!all_that_is_said("", &variables).contains("hunter2"));
    let variables = [("OPSPILOT__MODULES__DETECTOR_REGEX__KEYS", "[{whose: x, token: hunter2-variable, y: hunter2-z}]")];
    assert!(!all_that_is_said("", &variables).contains("hunter2"));
}
