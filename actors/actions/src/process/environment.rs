//! What a program finds in its environment: three fixed variables and those that its plan names, and not one more.

use std::ffi::OsString;

use opspilot_kernel::ids::ExecutionId;

/// Names the run: whatever a program leaves behind is found by it.
pub(crate) const RUN_ID: &str = "OPSPILOT_RUN_ID";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of a run; `value` tells what a named one is. One that is not set is left out.
pub(crate) fn of(run: &ExecutionId, named: &[String], value: impl Fn(&str) -> Option<OsString>) -> Vec<(String, OsString)> {
    let fixed = [("PATH", PATH), ("LANG", "C.UTF-8"), (RUN_ID, run.as_str())];
    let mut variables: Vec<(String, OsString)> = fixed.map(|(name, value)| (name.to_owned(), value.into())).into();
    for name in named {
        if let Some(value) = value(name).filter(|_| fixed.iter().all(|(fixed, _)| fixed != name)) {
            variables.push((name.clone(), value));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e6_a_plan_cannot_change_what_is_fixed() {
        let named = ["PATH", "OPSPILOT_RUN_ID", "TOKEN", "MISSING"].map(str::to_owned);
        let variables = of(&ExecutionId::given("exe_1"), &named, |name| (name != "MISSING").then(|| "evil".into()));
        let text: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={}", value.to_string_lossy())).collect();
        assert_eq!(text, [&format!("PATH={PATH}"), "LANG=C.UTF-8", "OPSPILOT_RUN_ID=exe_1", "TOKEN=evil"]);
    }
}
