//! Ids as a person writes them: only so much that one thing is meant.

use serde_json::Value as Json;

use super::{Api, Failure, client::encoded, output::text};

/// Pages that are searched for the rest of a shortened id.
const MAX_PAGES: usize = 40;
/// Letters and digits behind the prefix of a whole id.
const WHOLE: usize = 20;

/// A kind of thing that has an id.
pub(crate) struct Kind {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What its ids start with.
    pub(crate) prefix: &'static str,
    /// Where the service lists them.
    pub(crate) list: &'static str,
}

/// Incidents.
pub(crate) const INCIDENT: Kind = Kind { name: "incident", prefix: "inc_", list: "/api/incidents" };
/// Alerts.
pub(crate) const ALERT: Kind = Kind { name: "alert", prefix: "alr_", list: "/api/alerts" };
/// Proposals and what became of them.
pub(crate) const APPROVAL: Kind = Kind { name: "approval", prefix: "apr_", list: "/api/approvals" };
/// API keys.
pub(crate) const KEY: Kind = Kind { name: "key", prefix: "key_", list: "/api/api-keys" };

impl Kind {
    /// What was written, with its prefix.
    fn start(&self, written: &str) -> Result<String, Failure> {
        if written.starts_with("opk_") {
            // not repeated: whoever reads the screen would have it
            return Err(Failure::from("that is a key itself; name its id, which starts with key_ (see `opspilot key list`)"));
        }
        let start = if written.starts_with(self.prefix) { written.to_owned() } else { format!("{}{written}", self.prefix) };
        let behind = start.get(self.prefix.len()..).unwrap_or_default();
        if behind.is_empty() || !behind.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Failure::from(format!(
                "{written:?} is no {name}'s id; ids start with {prefix}, and `opspilot {command} list` shows them",
                name = self.name,
                prefix = self.prefix,
                command = match self.prefix {
                    prefix if prefix == INCIDENT.prefix => "incidents",
                    prefix if prefix == APPROVAL.prefix => "approvals",
                    _ => self.name,
                },
            )));
        }
        Ok(start)
    }

    /// The one of `ids` that `written` begins.
    pub(crate) fn one_of(&self, written: &str, ids: impl IntoIterator<Item = String>) -> Result<String, Failure> {
        let start = self.start(written)?;
        let found: Vec<String> = ids.into_iter().filter(|id| id.starts_with(&start)).take(2).collect();
        self.only(&start, &found, "")
    }

    /// The one of the service's that `written` begins.
    pub(crate) async fn of_service(&self, api: &Api, written: &str) -> Result<String, Failure> {
        let start = self.start(written)?;
        if start.len() >= self.prefix.len() + WHOLE {
            return Ok(start);
        }
        let mut found: Vec<String> = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let (items, next) = page(api, self.list, cursor).await?;
            found.extend(items.iter().map(|item| text(item, "id")).filter(|id| id.starts_with(&start)).map(str::to_owned));
            cursor = next;
            if found.len() > 1 || cursor.is_none() {
                break;
            }
        }
        let searched = if cursor.is_some() { " among the newest; write the whole id" } else { "" };
        self.only(&start, &found, searched)
    }

    fn only(&self, start: &str, found: &[String], searched: &str) -> Result<String, Failure> {
        match found {
            [only] => Ok(only.clone()),
            [] => Err(Failure::from(format!("no {}'s id starts with {start}{searched}", self.name))),
            [first, second, ..] => Err(Failure::from(format!("{start} is not unique: {first}, {second}; write more of it"))),
        }
    }
}

/// A page of a list, and where the next one begins.
async fn page(api: &Api, list: &str, cursor: Option<String>) -> Result<(Vec<Json>, Option<String>), Failure> {
    let behind = cursor.map(|cursor| format!("&cursor={}", encoded(&cursor))).unwrap_or_default();
    let page = api.get(&format!("{list}?limit=500{behind}")).await?;
    let items = page.get("items").and_then(Json::as_array).cloned().unwrap_or_default();
    Ok((items, page.get("next_cursor").and_then(Json::as_str).map(str::to_owned)))
}

/// Every page of a list.
pub(crate) async fn all(api: &Api, list: &str) -> Result<Vec<Json>, Failure> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let (more, next) = page(api, list, cursor).await?;
        items.extend(more);
        cursor = next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_cut_short_as_long_as_one_thing_is_meant() {
        let ids = ["key_0a1b", "key_0a2c", "key_77"].map(str::to_owned);
        let one = |written: &str| KEY.one_of(written, ids.clone()).map_err(|failure| failure.text);
        assert_eq!(one("key_7").unwrap(), "key_77");
        assert_eq!(one("0a1").unwrap(), "key_0a1b");
        assert_eq!(one("0a").unwrap_err(), "key_0a is not unique: key_0a1b, key_0a2c; write more of it");
        assert_eq!(one("9").unwrap_err(), "no key's id starts with key_9");
        for wrong in ["", "key_", "../x", "a b", "?"] {
            assert!(one(wrong).unwrap_err().contains("is no key's id"), "{wrong:?}");
        }
        let secret = one("opk_0123456789abcdefghijklmnopqr").unwrap_err();
        assert!(secret.contains("that is a key itself") && !secret.contains("0123"), "{secret}");
    }
}
