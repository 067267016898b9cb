use opspilot_ledger::Started;

fn forge(started: Started) {
    drop(opspilot_safety::ExecutionPermit::of(started));
}

fn main() {
    let _ = forge;
}
