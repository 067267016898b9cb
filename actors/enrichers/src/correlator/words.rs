//! Which words of a title name something.

/// The longest word that is looked at, in bytes.
const LONGEST: usize = 64;

/// The words of `text` that look like the name of a machine, a service, a database or an address, as in "cannot reach
/// `payments-db`" or "timeout calling `10.0.0.5:5432`"; plain words and numbers with their units name nothing.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`()[]{}<>,;=|!?*".contains(c))
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| (3..=LONGEST).contains(&word.len()) && is_name(word))
}

fn is_name(word: &str) -> bool {
    // a path or an address of a page is where something is told, not what it is about
    if word.contains('/') {
        return false;
    }
    let joined = word.chars().any(|c| "-_.:@".contains(c));
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let is_address = letters == 0 && word.matches('.').count() == 3 && word.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ':');
    if is_address {
        return true;
    }
    // an id of one run, request or hour is shared by nothing that it does not belong to anyway
    let is_hex = word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let begins = word.chars().next().is_some_and(char::is_alphabetic);
    begins && !is_hex && letters >= 2 && (joined || digits > 0)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_told_from_words_and_numbers() {
        let of = |text| names(text).collect::<Vec<_>>();
        assert_eq!(of("cart cannot reach payments-db: timeout after 500ms (attempt 3)"), ["payments-db"]);
        assert_eq!(of("connection to 10.0.0.5:5432 refused by node7."), ["10.0.0.5:5432", "node7"]);
        assert_eq!(of("cpu at 97.5 % for 5m, 12/34 cores, 2026-12-01T10:00:00Z"), Vec::<&str>::new());
        assert_eq!(of("request 6f1d2c3b4a5968778695a4b3c2d1e0f0 and abcdef12-3456-7890-abcd-ef1234567890 failed"), Vec::<&str>::new());
        assert_eq!(of("db.internal is \"read-only\", see https://wiki.example/db or /var/log/db.log"), ["db.internal", "read-only"]);
        assert_eq!(of(""), Vec::<&str>::new());
    }
}
