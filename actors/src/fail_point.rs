//! Places where a test may make the service fail. Only in builds with the feature `fail-points`; in all others they are
//! nothing.
//!
//! `FAIL_POINTS=after_gate=kill@3,before_append=pause:2000@1,skip_standing`: the third passage of `after_gate` ends the
//! process as `kill -9` would, the first of `before_append` waits two seconds. Without `@n` every passage acts. A name
//! alone is a switch, by which a rule of the protocol is broken on purpose: the checker has to notice.
//!
//! | point | where |
//! |---|---|
//! | `after_gate` | seats are reserved in Redis, nothing is decided |
//! | `before_append` · `after_commit` | round the statement that writes decisions, in the writer |
//! | `before_reply` · `before_mirror` | decisions are written; nobody was answered · all were answered |
//! | `in_repair` | a mirror's first part is written, the rest is not |
//!
//! | switch | broken |
//! |---|---|
//! | `skip_compare_and_set` | rule 2: what was refused is written all the same, at whatever version the log has |
//! | `skip_standing` | rule 5: the standing that a decision rests on is not compared |
//! | `skip_append` | rule 4: answers are given for what was never written |

#[cfg(not(feature = "fail-points"))]
mod off {
    use events::LogError;

    /// Nothing fails here.
    pub(crate) async fn pass(_: &'static str) -> Result<(), LogError> {
        Ok(())
    }

    /// No rule is broken.
    pub(crate) const fn is_on(_: &'static str) -> bool {
        false
    }
}

#[cfg(feature = "fail-points")]
mod on {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use events::LogError;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        /// The process ends at once, with nothing tidied up.
        Kill,
        /// The task unwinds.
        Panic,
        Pause(Duration),
        /// As if the connection to the log had been lost.
        Error,
        /// A switch.
        On,
    }

    pub(super) struct Point {
        pub(super) action: Action,
        /// Which passage acts; every one, without a number.
        pub(super) only: Option<u64>,
        passed: AtomicU64,
    }

    static POINTS: LazyLock<HashMap<String, Point>> = LazyLock::new(|| {
        let text = std::env::var("FAIL_POINTS").unwrap_or_default();
        parse(&text).unwrap_or_else(|wrong| {
            // A test that asks for a fault which never happens would prove nothing.
            eprintln!("FAIL_POINTS: {wrong} is not NAME=ACTION[@N]");
            std::process::abort()
        })
    });

    pub(super) fn parse(text: &str) -> Result<HashMap<String, Point>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| parse_one(word).ok_or_else(|| word.to_owned())).collect()
    }

    fn parse_one(word: &str) -> Option<(String, Point)> {
        let (name, action, only) = match word.split_once('=') {
            None => (word, Action::On, None),
            Some((name, rest)) => {
                let (action, only) = match rest.split_once('@') {
                    Some((action, number)) => (action, Some(number.parse().ok()?)),
                    None => (rest, None),
                };
                let action = match (action, action.strip_prefix("pause:")) {
                    (_, Some(millis)) => Action::Pause(Duration::from_millis(millis.parse().ok()?)),
                    ("kill", _) => Action::Kill,
                    ("panic", _) => Action::Panic,
                    ("error", _) => Action::Error,
                    _ => return None,
                };
                (name, action, only)
            }
        };
        Some((name.to_owned(), Point { action, only, passed: AtomicU64::new(0) }))
    }

    /// Does here what the environment asks for, if anything.
    pub(crate) async fn pass(name: &'static str) -> Result<(), LogError> {
        let Some(point) = POINTS.get(name) else { return Ok(()) };
        let passage = point.passed.fetch_add(1, Ordering::Relaxed) + 1;
        if point.only.is_some_and(|only| only != passage) {
            return Ok(());
        }
        eprintln!("fail point {name}: {:?} at passage {passage}", point.action);
        match point.action {
            Action::Kill => std::process::abort(),
            Action::Panic => std::panic::resume_unwind(Box::new(format!("fail point {name}"))),
            Action::Pause(time) => tokio::time::sleep(time).await,
            Action::Error => return Err(LogError::Unknown(format!("fail point {name}"))),
            Action::On => {}
        }
        Ok(())
    }

    /// Whether a rule is broken on purpose.
    pub(crate) fn is_on(name: &'static str) -> bool {
        POINTS.get(name).is_some_and(|point| point.action == Action::On)
    }
}

#[cfg(not(feature = "fail-points"))]
pub(crate) use off::{is_on, pass};
#[cfg(feature = "fail-points")]
pub(crate) use on::{is_on, pass};

#[cfg(all(test, feature = "fail-points"))]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::on::{Action, parse};

    #[test]
    fn what_is_asked_for_is_read_whole_or_refused() {
        let points =
            parse("after_gate=kill@3, before_append=pause:2000@1,in_repair=error,skip_standing").unwrap();
        let of = |name: &str| (points[name].action, points[name].only);
        assert_eq!(of("after_gate"), (Action::Kill, Some(3)));
        assert_eq!(of("before_append"), (Action::Pause(Duration::from_secs(2)), Some(1)));
        assert_eq!(of("in_repair"), (Action::Error, None));
        assert_eq!(of("skip_standing"), (Action::On, None));
        assert!(parse("").unwrap().is_empty());
        for bad in ["x=stop", "x=kill@", "x=pause:soon", "x=pause"] {
            assert_eq!(parse(bad).err().as_deref(), Some(bad));
        }
    }
}
