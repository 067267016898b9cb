//! What somebody touches who adds a detector by the recipe of `CONTRIBUTING.md`: its folder, and `lib.rs`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::long;

/// The detector of the recipe, as short as it can be.
const DETECTOR: &str = "\
//! Counts batches, to show what a detector needs.

use opspilot_kernel::{alert::AlertRecord, config::ModuleConfig, signal::LogEntry};
use opspilot_runtime::Entry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Detect;

/// The registry's entry.
pub const ENTRY: Entry = crate::module::entry::<Burst>();

/// Configuration of `detector.burst`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many batches are too many.
    pub most: u64,
}

impl ModuleConfig for Config {}

/// Counts batches.
#[derive(Debug)]
pub struct Burst {
    most: u64,
    seen: u64,
}

impl Detect for Burst {
    const ID: &'static str = \"detector.burst\";
    const SUMMARY: &'static str = \"counts batches\";
    type Config = Config;

    fn build(config: &Config) -> Burst {
        Burst { most: config.most, seen: 0 }
    }

    fn consume(&mut self, _: &LogEntry, _: &mut Vec<AlertRecord>) {
        self.seen = self.seen.saturating_add(1).min(self.most);
    }
}
";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file below a folder and what is in it, by its path from there.
fn files(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(root, &path, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

fn all(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    files(root, root, &mut found);
    found
}

#[test]
fn a_newcomers_detector_touches_its_folder_and_one_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = tempfile::tempdir().unwrap();
    let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(root));
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let target = copy.path().join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // what is deleted and not yet committed is not there
        if root.join(name).is_file() {
            fs::copy(root.join(name), target).unwrap();
        }
    }
    let before = all(copy.path());
    let recipe = fs::read_to_string(copy.path().join("CONTRIBUTING.md")).unwrap();
    for step in ["`burst/mod.rs`", "`pub mod burst;` and `burst::ENTRY` in `MODULES`"] {
        assert!(recipe.contains(step), "the recipe has changed, and this test with it: {step}");
    }
    let source = copy.path().join("actors/detectors/src");
    fs::create_dir(source.join("burst")).unwrap();
    fs::write(source.join("burst/mod.rs"), DETECTOR).unwrap();
    let list = fs::read_to_string(source.join("lib.rs")).unwrap();
    let longer =
        list.replace("pub mod alert;\n", "pub mod alert;\npub mod burst;\n").replace("alert::ENTRY]", "alert::ENTRY, burst::ENTRY]");
    fs::write(source.join("lib.rs"), &longer).unwrap();
    assert_eq!(longer.lines().count(), list.lines().count() + 1);
    if long() {
        // what is outside of the copy is built already; what is in it takes a folder of its own
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut check = Command::new(cargo);
        check.args(["test", "--offline", "--locked", "-p", "opspilot-detectors", "--lib", "contract"]).current_dir(copy.path());
        let target = tempfile::tempdir().unwrap();
        run(check.env("CARGO_TARGET_DIR", target.path()));
    }
    let after = all(copy.path());
    let touched: Vec<_> =
        after.iter().filter(|(name, text)| before.get(*name) != Some(*text)).map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(touched, ["actors/detectors/src/burst/mod.rs", "actors/detectors/src/lib.rs"]);
}
