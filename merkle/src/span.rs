//! Which parts of a tree a proof consists of: spans of leaves, and the complete subtrees that make a span up.

/// A complete subtree: the leaves `[index << level, (index + 1) << level)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// 0: a leaf.
    pub level: u8,
    /// Counted from the left among the subtrees of its level.
    pub index: u64,
}

impl Node {
    /// The leaves below it.
    #[must_use]
    pub fn span(self) -> Span {
        Span { start: self.index << self.level, end: (self.index + 1) << self.level }
    }
}

/// The leaves `[start, end)`, a subtree of some tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first leaf.
    pub start: u64,
    /// The leaf after the last.
    pub end: u64,
}

impl Span {
    /// How many leaves it has.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The complete subtrees that make it up, from the left, largest first.
    #[must_use]
    pub fn nodes(self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut start = self.start;
        while start < self.end {
            let fits = 63 - (self.end - start).leading_zeros();
            let level = fits.min(start.trailing_zeros());
            nodes.push(Node { level: level as u8, index: start >> level });
            start += 1 << level;
        }
        nodes
    }

    /// Where a tree over these leaves splits: after the largest power of two that is smaller than their number.
    fn middle(self) -> u64 {
        self.start + (1 << (63 - (self.len() - 1).leading_zeros()))
    }
}

/// The spans whose roots prove that a leaf is in the tree of `size` leaves, from the leaf up (RFC 9162, 2.1.3.1).
/// `None` if there is no such leaf.
#[must_use]
pub fn inclusion_spans(index: u64, size: u64) -> Option<Vec<Span>> {
    if index >= size {
        return None;
    }
    let mut spans = Vec::new();
    let mut here = Span { start: 0, end: size };
    while here.len() > 1 {
        let (left, right) = split(here);
        let (inside, beside) = if index < left.end { (left, right) } else { (right, left) };
        spans.push(beside);
        here = inside;
    }
    spans.reverse();
    Some(spans)
}

/// The spans whose roots prove that the tree of `new` leaves begins with the tree of `old` ones (RFC 9162, 2.1.4.1).
/// `None` if `old` is none, or more than `new`.
#[must_use]
pub fn consistency_spans(old: u64, new: u64) -> Option<Vec<Span>> {
    if old == 0 || old > new {
        return None;
    }
    let mut spans = Vec::new();
    let mut here = Span { start: 0, end: new };
    while here.end != old {
        let (left, right) = split(here);
        let (inside, beside) = if old <= left.end { (left, right) } else { (right, left) };
        spans.push(beside);
        here = inside;
    }
    // Who verifies has the old root, and so this span's root if it is the whole old tree.
    if here.start > 0 {
        spans.push(here);
    }
    spans.reverse();
    Some(spans)
}

fn split(span: Span) -> (Span, Span) {
    let middle = span.middle();
    (Span { start: span.start, end: middle }, Span { start: middle, end: span.end })
}
