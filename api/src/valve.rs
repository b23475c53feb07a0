//! How many requests of one kind are worked on at a time: as many as are answered soon.
//!
//! Work that waits past its caller's deadline is done for nobody, so a queue that is too long costs more than the
//! requests that it keeps: the service would be busy and answer nobody. What does not fit is told to come back.
//! The bound follows what is seen: the first late answers bring it down to what was really inside, and below by the
//! measure of their delay; it grows again while answers are in time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer that took longer was late. Half of what a caller is promised, so that there is time to shrink.
const LATE: Duration = Duration::from_millis(400);

/// Fewest and most requests at a time. The fewest keep a slow database busy, too, and two cores that sign for a third of a
/// second at most.
const BOUNDS: (f64, f64) = (128.0, 4_096.0);

/// The most that one late answer shrinks it by.
const HALF: f64 = 0.5;

/// The requests of one kind.
#[derive(Debug)]
pub struct Valve {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    inside: u32,
    bound: f64,
    /// Answers that were under way when it shrank say nothing new.
    shrunk: Option<Instant>,
}

impl Default for Valve {
    fn default() -> Self {
        Self { state: Mutex::new(State { inside: 0, bound: BOUNDS.1, shrunk: None }) }
    }
}

impl Valve {
    /// A place, unless there is none.
    pub fn enter(&self) -> Option<Inside<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if f64::from(state.inside) >= state.bound {
            return None;
        }
        state.inside += 1;
        Some(Inside { valve: self, since: Instant::now() })
    }
}

/// A place that was taken; it is given back when this is dropped, also by a caller who went away.
#[derive(Debug)]
pub struct Inside<'a> {
    valve: &'a Valve,
    since: Instant,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.valve.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.learn(self.since, self.since.elapsed());
        state.inside = state.inside.saturating_sub(1);
    }
}

impl State {
    fn learn(&mut self, since: Instant, took: Duration) {
        if took <= LATE {
            // Only a bound that is reached may grow, by one for each round of answers.
            if f64::from(self.inside) >= self.bound / 2.0 {
                self.bound = (self.bound + 1.0 / self.bound.sqrt()).min(BOUNDS.1);
            }
        } else if self.shrunk.is_none_or(|shrunk| since > shrunk) {
            let factor = (LATE.as_secs_f64() / took.as_secs_f64()).max(HALF);
            // From where it really was: a bound that was never reached says nothing.
            self.bound = (f64::from(self.inside).min(self.bound) * factor).max(BOUNDS.0);
            self.shrunk = Some(Instant::now());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_sent_away_and_places_come_back() {
        let valve = Valve::default();
        let inside: Vec<_> = (0..5_000).map_while(|_| valve.enter()).collect();
        assert_eq!(inside.len(), 4_096);
        assert!(valve.enter().is_none());
        drop(inside);
        assert!(valve.enter().is_some());
    }

    #[test]
    fn late_answers_shrink_it_once_a_round_and_prompt_ones_let_it_grow() {
        let valve = Valve::default();
        let begun = Instant::now();
        let mut state = valve.state.lock().unwrap();
        state.inside = 512;
        for _ in 0..100 {
            state.learn(begun, LATE * 4);
        }
        assert!((state.bound - 256.0).abs() < 1e-9, "{}", state.bound);
        state.inside = 256;
        state.learn(Instant::now() + LATE, LATE * 4);
        assert!((state.bound - 128.0).abs() < 1e-9, "{}", state.bound);
        for _ in 0..10_000 {
            state.inside = 4_096;
            state.learn(Instant::now(), LATE / 4);
        }
        assert!(state.bound > 500.0 && state.bound <= BOUNDS.1, "{}", state.bound);
    }
}
