//! Components that depend on each other in a circle, taken as one.

/// Not come to yet.
const UNSEEN: usize = usize::MAX;

/// The strongly connected components of a graph, called *knots* here. They are numbered so that a knot depends only on
/// knots of smaller numbers: whoever goes through the numbers upwards has seen all that one depends on before it.
#[derive(Debug, Default)]
pub(super) struct Condensed {
    /// The knot of each component.
    pub(super) knot_of: Vec<usize>,
    /// The components of each knot.
    pub(super) members: Vec<Vec<usize>>,
    /// On which other knots each depends.
    pub(super) below: Vec<Vec<usize>>,
}

impl Condensed {
    /// The knots of a graph in which the component `n` depends on `below[n]`. Linear, and without recursion, so that a
    /// chain may be as long as it likes.
    ///
    /// R. Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1 (1972).
    pub(super) fn of(below: &[Vec<usize>]) -> Condensed {
        let mut search = Search {
            order: vec![UNSEEN; below.len()],
            low: vec![UNSEEN; below.len()],
            next: 0,
            open: Vec::new(),
            knot_of: vec![UNSEEN; below.len()],
            members: Vec::new(),
        };
        for root in 0..below.len() {
            if at(&search.order, root) == UNSEEN {
                search.visit(root, below);
            }
        }
        let Search { knot_of, members, .. } = search;
        let condensed = members.iter().enumerate().map(|(knot, members)| {
            let all = members.iter().filter_map(|member| below.get(*member)).flatten();
            let mut others: Vec<usize> = all.map(|to| at(&knot_of, *to)).filter(|other| *other != knot).collect();
            others.sort_unstable();
            others.dedup();
            others
        });
        Condensed { below: condensed.collect(), knot_of, members }
    }
}

struct Search {
    /// When each was come to.
    order: Vec<usize>,
    /// The earliest that each leads back to.
    low: Vec<usize>,
    next: usize,
    /// Those whose knot is not known yet, in the order in which they were come to.
    open: Vec<usize>,
    knot_of: Vec<usize>,
    members: Vec<Vec<usize>>,
}

impl Search {
    fn visit(&mut self, root: usize, below: &[Vec<usize>]) {
        self.enter(root);
        let mut path = vec![(root, 0_usize)];
        while let Some((number, done)) = path.pop() {
            if let Some(to) = below.get(number).and_then(|list| list.get(done)).copied() {
                path.push((number, done + 1));
                if at(&self.order, to) == UNSEEN {
                    self.enter(to);
                    path.push((to, 0));
                } else if at(&self.knot_of, to) == UNSEEN {
                    self.lower(number, at(&self.order, to));
                }
                continue;
            }
            if at(&self.low, number) == at(&self.order, number) {
                self.close(number);
            }
            if let Some((parent, _)) = path.last() {
                self.lower(*parent, at(&self.low, number));
            }
        }
    }

    fn enter(&mut self, number: usize) {
        set(&mut self.order, number, self.next);
        set(&mut self.low, number, self.next);
        self.next += 1;
        self.open.push(number);
    }

    fn lower(&mut self, number: usize, to: usize) {
        let least = at(&self.low, number).min(to);
        set(&mut self.low, number, least);
    }

    /// `number` leads back to nothing before it: it and all that was come to since are a knot.
    fn close(&mut self, number: usize) {
        let from = self.open.iter().rposition(|open| *open == number).unwrap_or(0);
        let mut members = self.open.split_off(from);
        members.iter().for_each(|member| set(&mut self.knot_of, *member, self.members.len()));
        members.sort_unstable();
        self.members.push(members);
    }
}

fn at(list: &[usize], number: usize) -> usize {
    list.get(number).copied().unwrap_or(UNSEEN)
}

fn set(list: &mut [usize], number: usize, value: usize) {
    if let Some(place) = list.get_mut(number) {
        *place = value;
    }
}
