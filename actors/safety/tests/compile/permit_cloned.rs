fn twice(permit: &opspilot_safety::ExecutionPermit) -> opspilot_safety::ExecutionPermit {
    permit.clone()
}

fn main() {
    let _ = twice;
}
