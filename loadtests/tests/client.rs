//! The virtual client: the order of its requests, and what it makes of answers that it did not want.

use loadtests::{Client, Next, Outcome, Script};

const SCRIPT: Script = Script { heartbeats: Some(3), refusals_expected: false };

fn holding(session_id: &str) -> Client {
    let mut client = Client::default();
    let outcome = client.answered(&Next::Acquire, SCRIPT, Some((200, Some(session_id))));
    assert_eq!(outcome, Outcome::Expected);
    client
}

#[test]
fn acquire_three_heartbeats_release_and_again() {
    let mut client = Client::default();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let request = client.next(SCRIPT);
        seen.push(request.clone());
        assert_eq!(client.answered(&request, SCRIPT, Some((200, Some("s1")))), Outcome::Expected);
    }
    let beat = || Next::Heartbeat("s1".into());
    assert_eq!(seen, [Next::Acquire, beat(), beat(), beat(), Next::Release("s1".into()), Next::Acquire]);
}

#[test]
fn without_a_number_of_heartbeats_a_session_is_kept() {
    let script = Script { heartbeats: None, ..SCRIPT };
    let mut client = holding("s1");
    for _ in 0..100 {
        let request = client.next(script);
        assert_eq!(request, Next::Heartbeat("s1".into()));
        client.answered(&request, script, Some((200, None)));
    }
}

#[test]
fn a_passing_failure_is_repeated_and_counted() {
    let mut client = holding("s1");
    let beat = client.next(SCRIPT);
    assert_eq!(client.answered(&beat, SCRIPT, Some((503, None))), Outcome::Status(503));
    assert_eq!(client.answered(&beat, SCRIPT, None), Outcome::Lost);
    for _ in 0..3 {
        assert_eq!(client.next(SCRIPT), beat, "failed heartbeats are not among the three");
        client.answered(&beat, SCRIPT, Some((200, None)));
    }
    assert_eq!(client.next(SCRIPT), Next::Release("s1".into()));
}

#[test]
fn an_ended_session_begins_anew() {
    let mut client = holding("s1");
    let beat = client.next(SCRIPT);
    assert_eq!(client.answered(&beat, SCRIPT, Some((410, None))), Outcome::Status(410));
    assert_eq!(client.next(SCRIPT), Next::Acquire);
}

#[test]
fn a_refusal_is_an_error_only_where_pools_have_room() {
    let mut client = Client::default();
    let besieged = Script { refusals_expected: true, ..SCRIPT };
    assert_eq!(client.answered(&Next::Acquire, besieged, Some((409, None))), Outcome::Expected);
    assert_eq!(client.answered(&Next::Acquire, SCRIPT, Some((409, None))), Outcome::Status(409));
    assert_eq!(client.next(SCRIPT), Next::Acquire);
}

#[test]
fn a_grant_without_a_session_is_an_error() {
    let mut client = Client::default();
    assert_eq!(client.answered(&Next::Acquire, SCRIPT, Some((200, None))), Outcome::Status(200));
    assert_eq!(client.session_id(), None);
}
