fn stored(permit: &opspilot_safety::ExecutionPermit) -> String {
    serde_json::to_string(permit).unwrap()
}

fn main() {
    let _ = stored;
}
