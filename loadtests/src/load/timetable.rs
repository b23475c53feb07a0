//! When requests fall due: the n-th at n/rate after the start, whatever the server does.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

/// A constant rate of arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Timetable {
    /// When the first request falls due.
    pub start: Instant,
    /// Requests a second.
    pub rate: f64,
    /// How many there are.
    pub requests: u64,
}

/// A request has fallen due.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Which one, from 0.
    pub number: u64,
    /// When it should have been sent.
    pub due: Instant,
}

impl Timetable {
    /// When the n-th request falls due. Computed from the start each time, so that nothing adds up.
    pub fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Announces every request at its time, from a thread of its own: the runtime's timer is a millisecond
    /// coarse, as much as a fast answer takes. Ends early if nobody listens any more.
    ///
    /// If the channel is full the announcement is late, but the due time is still the right one.
    pub fn announce(self, ticks: Sender<Tick>) {
        std::thread::spawn(move || {
            for number in 0..self.requests {
                let due = self.due(number);
                let wait = due.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    std::thread::sleep(wait);
                }
                if ticks.blocking_send(Tick { number, due }).is_err() {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let start = Instant::now();
        let table = Timetable { start, rate: 3.0, requests: 10 };
        assert_eq!(table.due(0), start);
        assert_eq!(table.due(3_000_000), start + Duration::from_secs(1_000_000));
    }

    #[tokio::test]
    async fn ticks_come_in_order_and_on_time() {
        let table = Timetable { start: Instant::now(), rate: 1_000.0, requests: 50 };
        let (sender, mut ticks) = tokio::sync::mpsc::channel(64);
        table.announce(sender);
        let mut expected = 0;
        while let Some(tick) = ticks.recv().await {
            assert_eq!((tick.number, tick.due), (expected, table.due(expected)));
            assert!(Instant::now() >= tick.due);
            expected += 1;
        }
        assert_eq!(expected, 50);
    }
}
