//! Lists: which part of one is wanted, and how it is answered.

use opspilot_ledger::{Listed, Page as Part};
use serde::{Deserialize, Serialize};

/// The most a list may be asked for at once.
pub const MAX_LIMIT: u32 = 500;

/// How many items a list is asked for: 1 to 500, by default 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Limit(pub u32);

impl Default for Limit {
    fn default() -> Limit {
        Limit(50)
    }
}

impl Limit {
    fn most(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// As many rows as show whether there are more than wanted.
    pub fn and_one(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match text.parse() {
            _ if text.is_empty() => Ok(Limit::default()),
            Ok(limit @ 1..=MAX_LIMIT) => Ok(Limit(limit)),
            _ => Err(serde::de::Error::custom("limit is a number from 1 to 500")),
        }
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Slice {
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    pub limit: Limit,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl Slice {
    /// As the ledger takes it.
    pub fn part(self) -> Part {
        part(self.limit, self.cursor)
    }
}

/// The part of a list that a limit and a cursor name.
pub fn part(limit: Limit, cursor: Option<String>) -> Part {
    Part { limit: limit.most(), cursor }
}

/// The answer to a list: some items, and where the next ones begin.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Ask with `cursor=` this for the next ones; null at the end.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// What the ledger listed, each as `shown`.
    pub fn of<S>(listed: Listed<S>, shown: impl Fn(S) -> T) -> Page<T> {
        Page { items: listed.items.into_iter().map(shown).collect(), next_cursor: listed.next_cursor }
    }

    /// As many of `rows` as were wanted, each as `shown`; if [one more](Limit::and_one) came, the next begin behind the last.
    pub fn cut<S>(mut rows: Vec<S>, limit: Limit, behind: impl Fn(&S) -> String, shown: impl Fn(S) -> T) -> Page<T> {
        let more = rows.len() > limit.most();
        rows.truncate(limit.most());
        let next_cursor = rows.last().filter(|_| more).map(behind);
        Page { items: rows.into_iter().map(shown).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_end_only_if_something_follows() {
        let cut = |rows: Vec<u8>| {
            let page: Page<String> = Page::cut(rows, Limit(2), u8::to_string, |row| format!("row {row}"));
            (page.items, page.next_cursor)
        };
        assert_eq!(cut(vec![]), (vec![], None));
        assert_eq!(cut(vec![1, 2]), (vec!["row 1".to_owned(), "row 2".to_owned()], None));
        assert_eq!(cut(vec![1, 2, 3]), (vec!["row 1".to_owned(), "row 2".to_owned()], Some("2".to_owned())));
    }
}
