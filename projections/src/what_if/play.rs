//! Wishes against a limit: pure. Who finds no seat waits in line until one is free or its time is over.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

use super::wishes::Wish;
use super::{Outcome, Waiter};

const MINUTE_MS: f64 = 60_000.0;

struct Table<'a> {
    wishes: &'a [Wish],
    limits: std::iter::Peekable<std::slice::Iter<'a, (i64, i64)>>,
    limit: i64,
    /// When the seats that are held get free.
    held: BinaryHeap<Reverse<i64>>,
    /// In the order of asking; those whose time is over are dropped as they come up.
    line: VecDeque<usize>,
    /// Those in the line who have time left, by when it is over.
    waiting: BTreeSet<(i64, usize)>,
    waiters: HashMap<&'a str, (i64, i64)>,
    outcome: Outcome,
}

/// Plays wishes, ordered by when they begin. `limits` are (from when on, seats), ordered.
pub(super) fn play(wishes: &[Wish], limits: &[(i64, i64)]) -> Outcome {
    let mut table = Table {
        wishes,
        limits: limits.iter().peekable(),
        limit: 0,
        held: BinaryHeap::new(),
        line: VecDeque::new(),
        waiting: BTreeSet::new(),
        waiters: HashMap::new(),
        outcome: Outcome::default(),
    };
    for (n, wish) in wishes.iter().enumerate() {
        table.until(wish.from_ms);
        table.ask(n);
    }
    table.until(i64::MAX);
    let Table { mut outcome, waiters, .. } = table;
    outcome.users = waiters
        .into_iter()
        .map(|(user, (denied, ms))| Waiter {
            user_id: user.to_owned(),
            denied,
            denial_minutes: ms as f64 / MINUTE_MS,
        })
        .collect();
    outcome
}

impl Table<'_> {
    /// Everything that happens before or at a time: seats that get free, limits that change, people who give up.
    fn until(&mut self, now: i64) {
        loop {
            let free = self.held.peek().map_or(i64::MAX, |Reverse(at)| *at);
            let change = self.limits.peek().map_or(i64::MAX, |(at, _)| *at);
            let next = free.min(change);
            if next > now || next == i64::MAX {
                break;
            }
            self.give_up(next);
            if free <= change {
                self.held.pop();
            } else if let Some((_, seats)) = self.limits.next() {
                self.limit = *seats;
            }
            self.serve(next);
        }
        self.give_up(now);
    }

    fn ask(&mut self, n: usize) {
        let wish = &self.wishes[n];
        if self.room() {
            self.grant(n, wish.from_ms);
        } else {
            self.line.push_back(n);
            self.waiting.insert((wish.patience_ms, n));
            self.outcome.denied += 1;
            self.waiters.entry(&wish.user_id).or_default().0 += 1;
        }
        let demand = i64::try_from(self.held.len() + self.waiting.len()).unwrap_or(i64::MAX);
        self.outcome.peak_demand = self.outcome.peak_demand.max(demand);
    }

    fn room(&self) -> bool {
        i64::try_from(self.held.len()).unwrap_or(i64::MAX) < self.limit
    }

    /// Grants what is free to those who wait.
    fn serve(&mut self, now: i64) {
        while self.room() {
            let Some(n) = self.line.pop_front() else { return };
            let wish = &self.wishes[n];
            if wish.patience_ms <= now {
                continue;
            }
            self.waiting.remove(&(wish.patience_ms, n));
            self.waited(n, now - wish.from_ms);
            self.grant(n, now);
        }
    }

    fn grant(&mut self, n: usize, now: i64) {
        let until = self.wishes[n].end_of(now);
        if until > now {
            self.held.push(Reverse(until));
        }
        self.outcome.peak = self.outcome.peak.max(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
    }

    /// Those whose time is over at a time have waited for nothing.
    fn give_up(&mut self, now: i64) {
        while let Some((patience, n)) = self.waiting.first().copied().filter(|(patience, _)| *patience <= now)
        {
            self.waiting.pop_first();
            self.outcome.never_granted += 1;
            self.waited(n, patience - self.wishes[n].from_ms);
        }
    }

    fn waited(&mut self, n: usize, ms: i64) {
        self.outcome.denial_minutes += ms as f64 / MINUTE_MS;
        self.waiters.entry(&self.wishes[n].user_id).or_default().1 += ms;
    }
}
