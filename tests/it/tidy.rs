//! House rules that no lint knows.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            // what only tests and measurements are made of is not shipped
            if !["tests", "benches", "examples", "target"].iter().any(|name| path.ends_with(name)) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn shipped() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&root().join("src"), &mut found);
    sources(&root().join("actors"), &mut found);
    assert!(found.len() > 40, "the walk found too little to mean anything");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn crate_dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("actors").join(name).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    dependencies.lines().filter_map(|line| line.split_once('.').map(|(name, _)| name.trim().to_owned())).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let allowed: [(&str, &[&str]); 9] = [
        ("kernel", &[]),
        ("ledger", &["kernel"]),
        ("runtime", &["kernel", "ledger"]),
        ("safety", &["kernel", "ledger", "runtime"]),
        ("connectors", &["kernel", "ledger", "runtime", "safety"]),
        ("detectors", &["kernel", "ledger", "runtime", "safety"]),
        ("enrichers", &["kernel", "ledger", "runtime", "safety"]),
        ("actions", &["kernel", "ledger", "runtime", "safety"]),
        ("notifiers", &["kernel", "ledger", "runtime", "safety"]),
    ];
    let folders = fs::read_dir(root().join("actors")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, allowed.len(), "a crate is missing from this table");
    for (name, below) in allowed {
        for dependency in crate_dependencies(name) {
            if let Some(ours) = dependency.strip_prefix("opspilot-") {
                assert!(below.contains(&ours), "{name} must not depend on {ours}");
            }
            assert!(dependency != "actix-web", "only the root names actix-web, not {name}");
            assert!(!dependency.starts_with("diesel") || name == "ledger", "only the ledger names diesel, not {name}");
        }
    }
}

#[test]
fn every_module_is_in_its_categorys_list() {
    let mut modules = 0;
    for category in ["connectors", "detectors", "enrichers", "actions", "notifiers"] {
        let source = root().join("actors").join(category).join("src");
        let list = fs::read_to_string(source.join("lib.rs")).unwrap();
        let list = list.split("MODULES").nth(1).unwrap_or_default().split(';').next().unwrap_or_default();
        for folder in fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            let name = folder.file_name().unwrap().to_str().unwrap();
            let code = fs::read_to_string(folder.join("mod.rs")).unwrap_or_default();
            if code.contains("const ENTRY:") {
                modules += 1;
                assert!(list.contains(&format!("{name}::ENTRY")), "{name} is not in the MODULES of {category}");
            }
        }
    }
    assert!(modules >= 7, "found only {modules} modules");
}

#[test]
fn files_stay_short_enough_to_read() {
    for (path, text) in shipped() {
        let lines = text.split("#[cfg(test)]\nmod ").next().unwrap().lines().count();
        assert!(lines <= 500 || path.ends_with("tests.rs"), "{} has {lines} lines without its tests", path.display());
    }
}

#[test]
fn every_actor_says_what_it_consumes_emits_keeps_and_does_on_restart() {
    let mut actors = 0;
    for (path, text) in shipped() {
        let code = text.split("#[cfg(test)]").next().unwrap();
        if path.ends_with("tests.rs") || !code.lines().any(|line| line.starts_with("impl") && line.contains(" Actor for ")) {
            continue;
        }
        actors += 1;
        for row in ["| Consumes", "| Emits", "| Keeps", "| On restart"] {
            assert!(text.contains(&format!("//! {row}")), "{} lacks the row {row:?}", path.display());
        }
    }
    assert!(actors >= 5, "found only {actors} actors");
}

/// The words of this shape, three letters, two digits, `I`, `W` or `E`, between two of these marks.
fn codes(text: &str, mark: char) -> Vec<&str> {
    let is_code = |word: &&str| {
        let (letters, rest) = word.split_at_checked(3).unwrap_or_default();
        let (digits, kind) = rest.split_at_checked(2).unwrap_or_default();
        letters.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(kind, "I" | "W" | "E")
    };
    text.split(mark).filter(is_code).collect()
}

#[test]
fn every_code_of_the_audit_log_has_one_meaning_in_one_table() {
    let mut explained = std::collections::BTreeMap::<String, Vec<PathBuf>>::new();
    let mut used = std::collections::BTreeMap::<String, PathBuf>::new();
    for (path, text) in shipped() {
        for row in text.lines().filter_map(|line| line.strip_prefix("//! | `")) {
            let place = row.split('|').next().unwrap();
            let mut named: Vec<String> = codes(&format!("`{place}"), '`').into_iter().map(str::to_owned).collect();
            if let ([first, last], true) = (named.as_slice(), place.contains('…')) {
                let number = |code: &str| code[3..5].parse::<u8>().unwrap();
                named = (number(first)..=number(last)).map(|n| format!("{}{n:02}{}", &first[..3], &first[5..])).collect();
            }
            for code in named {
                explained.entry(code).or_default().push(path.clone());
            }
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if !path.ends_with("tests.rs") {
            let lines: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            used.extend(codes(&lines, '"').into_iter().map(|code| (code.to_owned(), path.clone())));
        }
    }
    assert!(used.len() > 60, "found only {} codes", used.len());
    for (code, path) in used {
        assert!(explained.contains_key(&code), "{code}, which {} writes, is in no table of codes", path.display());
    }
    for (code, places) in explained {
        assert_eq!(places.len(), 1, "{code} is explained in {places:?}");
    }
}

#[test]
fn the_websocket_crate_has_one_importer() {
    for (path, text) in shipped() {
        let live = path.ends_with("src/http/live.rs") || path.starts_with(root().join("src/http/live"));
        assert!(live || !text.contains("actix_web_actors"), "{} names actix_web_actors", path.display());
    }
}

#[test]
fn the_architecture_document_names_every_event_and_every_crate() {
    let document = fs::read_to_string(root().join("actors/README.md")).unwrap();
    for kind in opspilot_kernel::event::EventKind::ALL {
        assert!(document.contains(kind.as_str()), "actors/README.md does not name {}", kind.as_str());
    }
    for entry in fs::read_dir(root().join("actors")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        assert!(document.contains(&format!("`{name}/`")), "actors/README.md does not name {name}/");
    }
}
