fn main() {
    let _ = opspilot_safety::ExecutionPermit {};
}
