//! The open loop against a small server that misbehaves on purpose.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadtests::{Credential, Crowd, Endpoint, Goal, Report, Run, Scenario, Script, Target, User, drive};
use poem::http::StatusCode;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::Data;
use poem::{EndpointExt, Route, Server, handler, post};

/// Counts what it is asked, answers as it is told.
#[derive(Default)]
struct Desk {
    acquired: AtomicUsize,
    heartbeats: AtomicUsize,
    released: AtomicUsize,
    seats: usize,
    /// The acquire of this number takes so long.
    stall: Option<(usize, Duration)>,
}

#[handler]
async fn acquire(Data(desk): Data<&Arc<Desk>>) -> (StatusCode, String) {
    let n = desk.acquired.fetch_add(1, Ordering::SeqCst);
    if let Some((_, length)) = desk.stall.filter(|(which, _)| *which == n) {
        tokio::time::sleep(length).await;
    }
    let taken = n - desk.released.load(Ordering::SeqCst);
    if desk.seats > 0 && taken >= desk.seats {
        desk.acquired.fetch_sub(1, Ordering::SeqCst);
        return (StatusCode::CONFLICT, r#"{"code":"no_seats_available"}"#.into());
    }
    (StatusCode::OK, format!(r#"{{"session_id":"s-{n}"}}"#))
}

#[handler]
fn heartbeat(Data(desk): Data<&Arc<Desk>>) -> &'static str {
    desk.heartbeats.fetch_add(1, Ordering::SeqCst);
    r#"{"status":"ok"}"#
}

#[handler]
fn release(Data(desk): Data<&Arc<Desk>>) -> &'static str {
    desk.released.fetch_add(1, Ordering::SeqCst);
    r#"{"status":"released"}"#
}

async fn serve(desk: Arc<Desk>) -> Endpoint {
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let port = acceptor.local_addr()[0].as_socket_addr().unwrap().port();
    let routes = Route::new()
        .at("/api/v1/licenses/acquire", post(acquire))
        .at("/api/v1/licenses/heartbeat", post(heartbeat))
        .at("/api/v1/licenses/release", post(release))
        .data(desk);
    tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
    Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap()
}

fn scenario(clients: usize, rate: f64, milliseconds: u64) -> Scenario {
    Scenario {
        name: "test".into(),
        clients,
        rate,
        duration: Duration::from_millis(milliseconds),
        tenants: 1,
        seats: 1_000,
        script: Script { heartbeats: Some(3), refusals_expected: false },
        sessions_first: false,
        goal: Goal { p99_ms: 500.0, error_rate: 0.01 },
    }
}

async fn run(desk: &Arc<Desk>, scenario: Scenario, connections: usize) -> Report {
    let target = Arc::new(Target::new(serve(desk.clone()).await, Credential::Header));
    let users = vec![User::new("u".into(), "token".into()).unwrap()];
    let crowd = Crowd { users, tenants: 1 };
    drive(Run { target, scenario, crowd, connections, server_pid: None }).await.unwrap()
}

#[tokio::test]
async fn clients_go_round_their_script_and_give_their_seats_back() {
    let desk = Arc::new(Desk::default());
    // 12 requests for each of 10 clients: two whole rounds of five, an acquire, a heartbeat.
    let report = run(&desk, scenario(10, 400.0, 300), 10).await;
    assert_eq!(report.all.count, 120);
    assert!(report.all.errors.is_empty(), "{:?}", report.samples);
    assert_eq!(
        (report.kinds["acquire"].count, report.kinds["heartbeat"].count, report.kinds["release"].count),
        (30, 70, 20)
    );
    assert_eq!(
        desk.released.load(Ordering::SeqCst),
        30,
        "the last seats are given back after the measurement"
    );
    assert!(report.goal_met() && report.text().contains("heartbeat"));
}

#[tokio::test]
async fn latency_counts_from_the_due_time_of_every_request_that_a_stall_held_up() {
    // One connection, 100 requests a second, and a stall of half a second: a closed loop would record one
    // slow request; here about 50 fell due meanwhile, and each has waited.
    let stall = Some((0, Duration::from_millis(500)));
    let desk = Arc::new(Desk { stall, ..Desk::default() });
    let report = run(&desk, scenario(1_000, 100.0, 1_000), 1).await;
    assert_eq!(report.all.count, 100);
    assert!(report.all.max_ms >= 500.0, "{:?}", report.all);
    assert!(report.all.p50_ms < 200.0 && report.all.p90_ms > 350.0, "{:?}", report.all);
    assert!(report.generator_lateness.p50_ms < 50.0, "the generator itself was on time");
}

#[tokio::test]
async fn a_client_that_waits_for_its_answer_is_overdue_not_forgotten() {
    // One client and many connections: its own state machine is the bottleneck.
    let stall = Some((0, Duration::from_millis(300)));
    let desk = Arc::new(Desk { stall, ..Desk::default() });
    let report = run(&desk, scenario(1, 100.0, 600), 8).await;
    assert_eq!(report.all.count, 60, "nothing is left out");
    assert!(report.all.p90_ms > 200.0, "{:?}", report.all);
    assert_eq!(report.kinds["acquire"].count, 12, "and the order of the script is kept");
}

#[tokio::test]
async fn a_full_pool_is_no_error_and_over_granting_is_seen() {
    let desk = Arc::new(Desk { seats: 3, ..Desk::default() });
    let mut besieged = scenario(20, 400.0, 500);
    besieged.script.refusals_expected = true;
    besieged.seats = 3;
    let report = run(&desk, besieged.clone(), 20).await;
    assert!(report.kinds["refused"].count > 0 && report.all.errors.is_empty(), "{:?}", report.all);
    assert!(report.most_held <= 3 && report.goal_met());

    let generous = Arc::new(Desk { seats: 4, ..Desk::default() });
    let report = run(&generous, besieged, 20).await;
    assert_eq!(report.most_held, 4);
    assert!(!report.goal_met(), "a seat too many was granted");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so() {
    let target = Arc::new(Target::new(Endpoint::parse("http://127.0.0.1:9").unwrap(), Credential::Header));
    let crowd = Crowd { users: vec![User::new("u".into(), "token".into()).unwrap()], tenants: 1 };
    let run = Run { target, scenario: scenario(1, 10.0, 100), crowd, connections: 1, server_pid: None };
    let error = drive(run).await.unwrap_err();
    assert!(format!("{error:#}").contains("not there"), "{error:#}");
}
