//! A YAML document as a tree in which every value knows where it was written.
//!
//! Scalars keep their text: what they mean is decided by the schema they are held against, so
//! that `port: 8080` is a number where a number is wanted and text where text is wanted.

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::report::{Finding, Place};

/// Deeper than any configuration, shallow enough for the stack.
const MAX_DEPTH: usize = 64;
/// Aliases can make a small file huge; this is where it stops.
const MAX_NODES: usize = 200_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, a number, a truth value or text; `plain` if without quotes.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written; no key twice.
    Map(Vec<Field>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// Text given from outside a file, without quotes.
    pub(super) fn plain(place: Place, text: &str) -> Node {
        Node { place, value: Value::Scalar { text: text.to_owned(), plain: true } }
    }

    /// A mapping without keys.
    pub(super) fn empty(place: Place) -> Node {
        Node { place, value: Value::Map(Vec::new()) }
    }

    /// Whether nothing was written: an empty value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads one document. What can be read in spite of a finding is in the tree.
pub(super) fn parse(text: &str, findings: &mut Vec<Finding>) -> Option<Node> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder { events: Parser::new_from_str_with_options(text, options), anchors: Vec::new(), nodes: 0, findings };
    builder.document()
}

struct Builder<'a, I> {
    events: I,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    findings: &'a mut Vec<Finding>,
}

/// Reading cannot go on; the finding has been written down.
struct Stop;

impl<'i, I> Builder<'_, I>
where
    I: Iterator<Item = Result<(Event<'i>, Span), granit_parser::ScanError>>,
{
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        while let Ok((event, span)) = self.next() {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::Comment(..) => {}
                Event::StreamEnd => return root.or_else(|| Some(Node::empty(Place::file(1, 1)))),
                _ if root.is_some() => {
                    self.findings.push(Finding::new(at(span.start), "a second document starts here; a configuration is one document"));
                    return root;
                }
                other => root = Some(self.node(other, span, 0).ok()?),
            }
        }
        None
    }

    fn next(&mut self) -> Result<(Event<'i>, Span), Stop> {
        match self.events.next() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let what = error.kind().to_string();
                self.findings.push(Finding::new(at(*error.marker()), format!("not YAML: {what}")).suggest(hint(&what)));
                Err(Stop)
            }
            None => Err(Stop),
        }
    }

    fn node(&mut self, event: Event<'i>, span: Span, depth: usize) -> Result<Node, Stop> {
        let place = at(span.start);
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            self.findings.push(Finding::new(place, format!("too large: at most {MAX_DEPTH} levels and {MAX_NODES} values")));
            return Err(Stop);
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (anchor, Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            Event::Alias(id) => {
                let found = self.anchors.iter().find(|(anchor, _)| *anchor == id).map(|(_, node)| node.clone());
                let Some(node) = found else {
                    self.findings.push(Finding::new(place, "this alias refers to an anchor that is not complete"));
                    return Err(Stop);
                };
                self.nodes += weight(&node);
                return Ok(node);
            }
            _ => return Err(Stop),
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Field>, Stop> {
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(fields);
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            let Value::Scalar { text, plain } = key.value else {
                self.findings.push(Finding::new(key.place, "a key must be a word, not a list or a mapping"));
                continue;
            };
            if plain && text == "<<" {
                let finding = Finding::new(key.place, "merge keys (`<<`) are not supported: YAML 1.2 does not have them");
                self.findings.push(finding.suggest("write the keys out; a whole value may still be an alias, such as `labels: *shop`"));
                continue;
            }
            match fields.iter().find(|field| field.key == text) {
                Some(first) => {
                    let before = first.place.to_string();
                    self.findings.push(
                        Finding::new(key.place, format!("duplicate key `{text}`"))
                            .suggest(format!("it already stands at {before}; keep one")),
                    );
                }
                None => fields.push(Field { key: text, place: key.place, node }),
            }
        }
    }
}

fn weight(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::List(items) => items.iter().map(weight).sum::<usize>() + 1,
        Value::Map(fields) => fields.iter().map(|field| weight(&field.node)).sum::<usize>() + 1,
    }
}

fn at(mark: Marker) -> Place {
    Place::file(mark.line(), mark.col() + 1)
}

/// The usual reason behind a parser's complaint.
fn hint(what: &str) -> &'static str {
    if what.contains("tab") {
        "indent with spaces"
    } else {
        "check the indentation, and put quotes around text that holds `: `, ` #`, or starts with one of [ { * & ! % @ `"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<Finding>) {
        let mut findings = Vec::new();
        let node = parse(text, &mut findings);
        (node, findings)
    }

    #[test]
    fn every_value_knows_its_place() {
        let (node, findings) = read("a:\n  - x: 1\n    y: 'two'\n");
        assert!(findings.is_empty(), "{findings:?}");
        let Value::Map(fields) = node.unwrap().value else { panic!() };
        let Value::List(items) = &fields[0].node.value else { panic!() };
        let Value::Map(inner) = &items[0].value else { panic!() };
        assert_eq!((inner[1].key.as_str(), &inner[1].place), ("y", &Place::file(3, 5)));
        assert_eq!(inner[1].node, Node { place: Place::file(3, 8), value: Value::Scalar { text: "two".into(), plain: false } });
    }

    #[test]
    fn duplicate_keys_and_broken_yaml_are_found_where_they_are() {
        let (node, findings) = read("a: 1\nb: 2\na: 3\n");
        assert!(node.is_some());
        assert_eq!(findings[0].place, Place::file(3, 1));
        assert!(findings[0].message.contains("duplicate key `a`"));
        let (node, findings) = read("a: [1, 2\nb: }\n");
        assert!(node.is_none());
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn merge_keys_are_named_as_what_they_are() {
        let (node, findings) = read("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n'<<': 3\n");
        assert!(node.is_some());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, Place::file(3, 3));
        assert!(findings[0].message.contains("merge keys"));
    }

    #[test]
    fn columns_count_characters() {
        let (_, findings) = read("ü: {名前: 1, 名前: 2}\n");
        assert_eq!(findings[0].place, Place::file(1, 12), "{findings:?}");
    }

    #[test]
    fn a_file_that_grows_by_aliases_is_stopped() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = level - 1;
            let row = vec![format!("*a{before}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        let (node, findings) = read(&text);
        assert!(node.is_none());
        assert!(findings[0].message.contains("too large"), "{findings:?}");
        let (_, findings) = read(&"[".repeat(5000));
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn nothing_is_an_empty_configuration() {
        for text in ["", "# only a comment\n", "---\n"] {
            let (node, findings) = read(text);
            assert!(findings.is_empty(), "{text:?} {findings:?}");
            let node = node.unwrap();
            assert!(node.is_null() || node.value == Value::Map(Vec::new()), "{text:?}");
        }
    }
}
