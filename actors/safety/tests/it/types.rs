//! What the types forbid: a permit is made by the gate and by nobody else.

#[test]
fn a_permit_cannot_be_made_copied_stored_or_read_outside_of_the_gate() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile/*.rs");
}
