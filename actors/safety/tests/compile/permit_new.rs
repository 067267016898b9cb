use opspilot_kernel::{ids::{ApprovalId, ExecutionId}, plan::{Plan, PlanDigest}};

fn forge(plan: Plan, digest: PlanDigest) -> opspilot_safety::ExecutionPermit {
    opspilot_safety::ExecutionPermit::new(ExecutionId::random(), ApprovalId::random(), plan, Vec::new(), digest)
}

fn main() {
    let _ = forge;
}
