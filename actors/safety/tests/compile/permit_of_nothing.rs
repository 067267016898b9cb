use opspilot_kernel::{execution::Execution, plan::{Plan, PlanDigest}};

fn forge(execution: Execution, plan: Plan, digest: PlanDigest) -> opspilot_ledger::Started {
    opspilot_ledger::Started { execution, plan, bytes: Vec::new(), digest }
}

fn main() {
    let _ = forge;
}
