fn main() {
    let _: opspilot_safety::ExecutionPermit = serde_json::from_str("{}").unwrap();
}
