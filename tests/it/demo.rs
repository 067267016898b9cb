//! The README's first command.

use crate::common::command;

#[test]
fn the_demo_tells_its_story_and_ends_with_0() {
    let output = command().args(["demo", "--exit-after-story", "--listen", "127.0.0.1:0", "--speed", "60"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    let story = [
        "Payments failing",
        "no space left on device",
        "proposed     Mount the archive volume archive-1 again",
        "the repair says: mounting archive-1 at /archive",
        "entries verified on a copy",
        "the story is told",
    ];
    for seen in story {
        assert!(out.contains(seen), "{seen} is missing in\n{out}");
    }
}
