fn twice(executor: &dyn opspilot_safety::Execute, permit: opspilot_safety::ExecutionPermit) {
    drop(executor.run(permit));
    drop(executor.run(permit));
}

fn main() {
    let _ = twice;
}
