use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ComponentName {
    ComponentName::new(text).unwrap()
}

fn graph(edges: &[(&str, &str)]) -> Graph {
    let known = Known { configured: true, ..Known::default() };
    let edges = edges.iter().map(|(from, to)| ((name(from), name(to)), known)).collect();
    Graph::new(BTreeMap::new(), edges, Arc::default())
}

/// A shop: `web` and `mobile` are served by `api`, that and `jobs` by `db`, which stands on `disk`.
fn shop() -> Graph {
    graph(&[("web", "api"), ("mobile", "api"), ("api", "db"), ("jobs", "db"), ("jobs", "queue"), ("db", "disk")])
}

fn found<'a>(walk: &Walk<'a>) -> Vec<(&'a str, usize)> {
    walk.found.iter().map(|hop| (hop.component.as_str(), hop.hops)).collect()
}

#[test]
fn a_walk_tells_the_nearest_first_and_how_far_they_are() {
    let shop = shop();
    assert_eq!(found(&shop.depends_on("web", Reach::default())), [("api", 1), ("db", 2), ("disk", 3)]);
    assert_eq!(found(&shop.dependents("db", Reach::default())), [("api", 1), ("jobs", 1), ("mobile", 2), ("web", 2)]);
    let radius = shop.blast_radius("disk", Reach::default());
    assert_eq!((radius.direct(), radius.total(), &radius.by_hop[..], radius.more), (1, 5, &[1, 2, 2][..], false));
    assert_eq!(shop.depends_on("nobody", Reach::default()), Walk::default());
}

#[test]
fn a_walk_ends_at_its_reach_and_says_so() {
    let shop = shop();
    let near = shop.dependents("disk", Reach { hops: 2, results: 100 });
    assert_eq!((found(&near), near.more), (vec![("db", 1), ("api", 2), ("jobs", 2)], true));
    let few = shop.dependents("disk", Reach { hops: 8, results: 2 });
    assert_eq!((found(&few), few.more), (vec![("db", 1), ("api", 2)], true));
    let all = shop.dependents("disk", Reach { hops: 3, results: 5 });
    assert_eq!((all.found.len(), all.more), (5, false));
}

#[test]
fn a_long_chain_and_a_circle_end() {
    let names: Vec<String> = (0..100_000).map(|n| format!("c{n:06}")).collect();
    let mut edges: Vec<(&str, &str)> = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let chain = graph(&edges);
    assert_eq!(chain.roots_among(&BTreeSet::from(["c000000", "c099999"])), [["c099999"]]);
    edges.push(("c099999", "c000000"));
    let circle = graph(&edges);
    assert_eq!(circle.roots_among(&BTreeSet::from(["c000000", "c099999"])), [["c000000", "c099999"]]);
    assert_eq!(circle.depends_on("c000000", Reach { hops: usize::MAX, results: 10 }).found.len(), 10);
}

#[test]
fn the_roots_of_a_failure_depend_on_no_other_that_fails() {
    let shop = shop();
    assert_eq!(shop.roots_among(&BTreeSet::from(["web", "api", "db", "jobs"])), [["db"]]);
    // through one that does not fail, and one that the graph does not know
    assert_eq!(shop.roots_among(&BTreeSet::from(["web", "disk", "mail"])), [["disk"], ["mail"]]);
    let circle = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("front", "a"), ("c", "below")]);
    assert_eq!(circle.roots_among(&BTreeSet::from(["a", "c", "front"])), [["a", "c"]]);
    assert_eq!(circle.roots_among(&BTreeSet::from(["a", "c", "below"])), [["below"]]);
}

#[test]
fn what_is_common_to_a_set_is_ranked() {
    let shop = shop();
    let common = |set: &[&'static str]| {
        let set = set.iter().copied().collect();
        let common = shop.common_dependencies(&set, 10);
        common.iter().map(|one| (one.component.to_string(), one.coverage(), one.precision())).collect::<Vec<_>>()
    };
    let of = |name: &str, coverage, precision| (name.to_owned(), coverage, precision);
    // all that is common to both front ends is the same to them; `api` serves nobody else
    assert_eq!(common(&["web", "mobile"])[..2], [of("api", 1.0, 1.0), of("db", 1.0, 0.5)]);
    // the database itself fails too: it counts to the set, and not to those that depend on it
    assert_eq!(common(&["web", "api", "db"])[..2], [of("db", 1.0, 0.5), of("disk", 1.0, 0.6)].into_iter().rev().collect::<Vec<_>>()[..]);
    // nothing is common: each stands for itself
    assert_eq!(common(&["queue", "disk"]), [of("disk", 0.5, 0.0), of("queue", 0.5, 0.0)].into_iter().rev().collect::<Vec<_>>());
    assert_eq!(common(&["nobody"]), []);
    assert_eq!(shop.common_dependencies(&BTreeSet::from(["web"]), 2).len(), 2);
}

#[test]
fn a_component_is_told_by_the_first_label_that_can_name_one() {
    let shop = shop();
    let of = |labels: &[(&str, &'static str)], source: &str| {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        shop.component_of(|label| labels.get(label).copied(), source).map(|name| name.to_string())
    };
    assert_eq!(of(&[("pod", "api-7f"), ("service", "api")], "prometheus").as_deref(), Some("api"));
    assert_eq!(of(&[("service", ""), ("app", " padded"), ("host", "db-3")], "prometheus").as_deref(), Some("db-3"));
    assert_eq!(of(&[], "db").as_deref(), Some("db"));
    assert_eq!(of(&[("severity", "critical")], "prometheus"), None);
    let own = ComponentLabels::new(vec!["team".to_owned()]);
    let graph = Graph::new(BTreeMap::new(), Edges::new(), Arc::new(own));
    assert_eq!(graph.component_of(|label| (label == "team").then_some("payments"), "x"), Some(name("payments")));
}

#[test]
fn names_are_kept_as_they_are_written() {
    let graph = graph(&[("Web", "web"), ("web", "web"), ("Web", "API")]);
    assert_eq!(graph.components().map(ComponentName::as_str).collect::<Vec<_>>(), ["API", "Web", "web"]);
    assert_eq!(graph.edge_count(), 2, "an edge to itself says nothing");
    assert!(graph.is_component("web") && !graph.is_component("WEB"));
    let edges: Vec<(&str, &str)> = graph.edges_of("web").map(|edge| (edge.from.as_str(), edge.to.as_str())).collect();
    assert_eq!(edges, [("Web", "web")]);
    for (text, why) in [("", BadName::Empty), ("a ", BadName::Invisible), ("a\nb", BadName::Invisible)] {
        assert_eq!(ComponentName::new(text), Err(why), "{text:?}");
    }
    assert!(ComponentName::new(&"é".repeat(MAX_NAME)).is_ok());
    assert_eq!(ComponentName::new(&"é".repeat(MAX_NAME + 1)), Err(BadName::TooLong));
}

/// The same answers, slowly: by a table of how far everybody is from everybody.
struct Slow {
    names: Vec<String>,
    far: Vec<Vec<Option<usize>>>,
}

impl Slow {
    fn new(count: usize, edges: &[(usize, usize)]) -> Slow {
        let mut far = vec![vec![None; count]; count];
        edges.iter().filter(|(a, b)| a != b).for_each(|(a, b)| far[*a][*b] = Some(1));
        for (k, i, j) in (0..count).flat_map(|k| (0..count).flat_map(move |i| (0..count).map(move |j| (k, i, j)))) {
            if let (Some(a), Some(b)) = (far[i][k], far[k][j])
                && i != j
            {
                far[i][j] = Some(far[i][j].map_or(a + b, |c: usize| c.min(a + b)));
            }
        }
        Slow { names: (0..count).map(|n| format!("n{n:02}")).collect(), far }
    }

    fn walk(&self, from: usize, forward: bool, reach: Reach) -> (Vec<(&str, usize)>, bool) {
        let distance = |to: usize| if forward { self.far[from][to] } else { self.far[to][from] };
        let mut all: Vec<(usize, usize)> = (0..self.names.len()).filter_map(|to| Some((distance(to)?, to))).collect();
        all.sort_unstable();
        let near: Vec<_> = all.iter().filter(|(hops, _)| *hops <= reach.hops).take(reach.results).collect();
        (near.iter().map(|(hops, to)| (self.names[*to].as_str(), *hops)).collect(), near.len() < all.len())
    }

    fn roots(&self, set: &BTreeSet<usize>) -> Vec<Vec<&str>> {
        let reaches = |a: usize, b: usize| self.far[a][b].is_some();
        let root = |m: &usize| set.iter().all(|other| !reaches(*m, *other) || reaches(*other, *m));
        let roots: Vec<usize> = set.iter().copied().filter(root).collect();
        let circles: BTreeSet<Vec<&str>> = roots
            .iter()
            .map(|m| roots.iter().filter(|other| *other == m || reaches(*m, **other)).map(|other| self.names[*other].as_str()).collect())
            .collect();
        circles.into_iter().collect()
    }

    fn common(&self, set: &BTreeSet<usize>) -> Vec<(&str, usize, usize, usize)> {
        let count = self.names.len();
        let mut all: Vec<(&str, usize, usize, usize)> = (0..count)
            .filter_map(|c| {
                let in_set = set.iter().filter(|m| self.far[**m][c].is_some()).count();
                let members = in_set + usize::from(set.contains(&c));
                let dependents = (0..count).filter(|m| self.far[*m][c].is_some()).count();
                (members > 0).then_some((self.names[c].as_str(), members, dependents, in_set))
            })
            .collect();
        all.sort_by(|(name, members, dependents, in_set), (name2, members2, dependents2, in_set2)| {
            let precision = |in_set: usize, dependents: usize| {
                if dependents == 0 {
                    1.0
                } else {
                    f64::from(u32::try_from(in_set).unwrap()) / f64::from(u32::try_from(dependents).unwrap())
                }
            };
            let precise = precision(*in_set2, *dependents2).total_cmp(&precision(*in_set, *dependents));
            members2.cmp(members).then(precise).then(dependents.cmp(dependents2)).then(name.cmp(name2))
        });
        all
    }
}

proptest! {
    #[test]
    fn answers_are_those_of_a_slow_and_simple_graph(
        count in 1..14_usize, raw in proptest::collection::vec((0..14_usize, 0..14_usize), 0..40),
        chosen in proptest::collection::btree_set(0..14_usize, 0..10), hops in 0..6_usize, results in 0..15_usize,
    ) {
        let pairs: Vec<(usize, usize)> = raw.iter().map(|(a, b)| (a % count, b % count)).collect();
        let slow = Slow::new(count, &pairs);
        let about = slow.names.iter().map(|text| (name(text), About::default())).collect();
        let edges = pairs.iter().map(|(a, b)| ((name(&slow.names[*a]), name(&slow.names[*b])), Known::default())).collect();
        let fast = Graph::new(about, edges, Arc::default());
        let reach = Reach { hops, results };
        for (number, text) in slow.names.iter().enumerate() {
            let (down, up) = (fast.depends_on(text, reach), fast.dependents(text, reach));
            prop_assert_eq!((found(&down), down.more), slow.walk(number, true, reach));
            prop_assert_eq!((found(&up), up.more), slow.walk(number, false, reach));
            let radius = fast.blast_radius(text, reach);
            prop_assert_eq!(radius.total(), up.found.len());
            prop_assert_eq!(radius.direct(), up.found.iter().filter(|hop| hop.hops == 1).count());
        }
        let set: BTreeSet<usize> = chosen.iter().map(|n| n % count).collect();
        let named: BTreeSet<&str> = set.iter().map(|n| slow.names[*n].as_str()).collect();
        prop_assert_eq!(fast.roots_among(&named), slow.roots(&set));
        let common = fast.common_dependencies(&named, usize::MAX);
        let common: Vec<_> = common.iter().map(|c| (c.component.as_str(), c.members, c.dependents, c.dependents_in_set)).collect();
        prop_assert_eq!(common, slow.common(&set));
    }

    #[test]
    fn more_than_fit_into_one_number_are_counted(width in 60..140_usize, failing in 2..140_usize) {
        let names: Vec<String> = (0..width).map(|n| format!("front{n}")).collect();
        let edges: Vec<(&str, &str)> = names.iter().map(|front| (front.as_str(), "back")).collect();
        let graph = graph(&edges);
        let set: BTreeSet<&str> = names.iter().take(failing).map(String::as_str).collect();
        let common = graph.common_dependencies(&set, 1);
        prop_assert_eq!((common[0].component.as_str(), common[0].members, common[0].dependents), ("back", set.len(), width));
    }
}
