//! What is served, and what the page's own code must not contain.

use std::{fs, path::Path};

use super::*;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard/page")
}

#[test]
fn every_file_of_the_page_is_served_and_its_modules_import_what_there_is() {
    let names: Vec<String> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in &names {
        assert!(INDEX.iter().chain(FILES).any(|file| file.name == name), "{name} is not in the list");
    }
    for file in FILES.iter().filter(|file| file.kind == SCRIPT) {
        let text = std::str::from_utf8(file.bytes).unwrap();
        for line in text.lines().filter(|line| line.starts_with("import ")) {
            let wanted = line.split("\"./").nth(1).and_then(|rest| rest.strip_suffix("\";"));
            assert!(wanted.is_some_and(|wanted| names.iter().any(|name| name == wanted)), "{}: {line}", file.name);
        }
    }
    let index = std::str::from_utf8(INDEX[0].bytes).unwrap();
    for part in index.split("/page/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(FILES.iter().any(|file| file.name == name), "the page wants {name}");
    }
}

#[test]
fn e3_the_pages_code_has_no_way_to_make_markup_of_text() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "srcdoc",
        "setHTML",
        "eval(",
        "Function(",
        "setTimeout(\"",
        "javascript:",
        "createPolicy",
        ".setAttributeNS",
        "importScripts",
        "import(",
    ];
    for file in INDEX.iter().chain(FILES) {
        let text = std::str::from_utf8(file.bytes).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} has {word}", file.name);
        }
        assert!(!text.contains("http://") && !text.contains("https://") || file.name == "icon.svg", "{} names another server", file.name);
        assert!(text.lines().count() <= 500, "{} is too long to read", file.name);
    }
    // elements and attributes are made in one place, which knows what may be set
    for file in FILES.iter().filter(|file| file.kind == SCRIPT && file.name != "dom.js") {
        let text = std::str::from_utf8(file.bytes).unwrap();
        for word in ["createElement", "setAttribute(\"href", "setAttribute(\"src", "setAttribute(\"on", ".href =", ".src ="] {
            assert!(!text.contains(word), "{} has {word}", file.name);
        }
    }
}

#[test]
fn e3_the_page_itself_has_nothing_inline() {
    let text = std::str::from_utf8(INDEX[0].bytes).unwrap();
    for word in ["<style", "style=", "onload=", "onclick=", "onerror="] {
        assert!(!text.contains(word), "{word}");
    }
    for script in text.split("<script").skip(1) {
        assert!(
            script.split_once('>').is_some_and(|(head, rest)| head.contains("src=\"/page/") && rest.starts_with("</script>")),
            "{script}"
        );
    }
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let given = |text: &str| HeaderValue::from_str(text).unwrap();
    assert!(is_same(Some(&given("\"a\"")), "\"a\""));
    assert!(is_same(Some(&given("\"b\", W/\"a\"")), "\"a\""));
    assert!(is_same(Some(&given("*")), "\"a\""));
    assert!(!is_same(Some(&given("\"b\"")), "\"a\""));
    assert!(!is_same(None, "\"a\""));
}
