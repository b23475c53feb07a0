//! The binary, as a shell sees it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ENGINES: &str = env!("CARGO_BIN_EXE_engines");

/// Says who the servers are and where they live: two process ids and a directory.
const INTRODUCE: &str = r#"top="$(dirname "$(dirname "$TEST_POSTGRES_DIR")")"
echo "$(head -n 1 "$top/postgres/data/postmaster.pid") $(cat "$top/redis/redis.pid") $top $$"
"#;

fn run(script: &str) -> Output {
    Command::new(ENGINES).args(["run", "--fast", "--", "/bin/sh", "-c", script]).output().unwrap()
}

/// The process ids and the directory.
fn introduced(line: &str) -> (Vec<String>, String) {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let dir = words.remove(2);
    assert!(words.len() == 3 && dir.starts_with('/'), "{line}");
    (words, dir)
}

fn assert_nothing_left((pids, dir): &(Vec<String>, String), patience: Duration) {
    let start = Instant::now();
    let left = || pids.iter().any(|pid| Path::new("/proc").join(pid).exists()) || Path::new(dir).exists();
    while left() && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!left(), "{pids:?} or {dir} are left");
}

/// Starts a command that introduces the servers and then sleeps.
fn start_sleeper(script: &str) -> (Child, (Vec<String>, String)) {
    let mut child = Command::new(ENGINES)
        .args(["run", "--fast", "--", "/bin/sh", "-c", &format!("{INTRODUCE}{script}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, introduced(&line))
}

fn kill(signal: &str, pid: u32) {
    assert!(
        Command::new("/bin/sh")
            .args(["-c", "kill -$0 $1", signal, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn the_exit_code_is_the_commands() {
    let output = run(&format!("{INTRODUCE}exit 7"));
    assert_eq!(output.status.code(), Some(7));
    assert_nothing_left(&introduced(&String::from_utf8(output.stdout).unwrap()), Duration::ZERO);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let output = Command::new(ENGINES).args(["run", "--", "no-such-command"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-command"));
}

#[test]
fn signals_end_the_command_and_the_engines() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (mut child, left) = start_sleeper("sleep 600");
        kill(signal, child.id());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_nothing_left(&left, Duration::from_millis(200));
    }
}

#[test]
fn a_deaf_command_is_ended_by_force() {
    let (mut child, left) = start_sleeper("trap '' TERM INT; while :; do sleep 1; done");
    kill("TERM", child.id());
    std::thread::sleep(Duration::from_millis(200));
    kill("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_nothing_left(&left, Duration::from_millis(200));
}

/// Nobody could tidy up: the kernel tells the servers, and the attendant removes the directory.
#[test]
fn a_killed_owner_leaves_nothing_even_when_a_server_is_frozen() {
    let (mut child, (mut pids, dir)) = start_sleeper("exec sleep 5");
    let sleeper = pids.pop().unwrap();
    kill("STOP", pids[0].parse().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_nothing_left(&(pids, dir), Duration::from_secs(15));
    kill("KILL", sleeper.parse().unwrap());
}

#[test]
fn check_names_both_or_what_to_install() {
    let found = Command::new(ENGINES).arg("check").output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(found.status.success() && text.contains("postgres: ") && text.contains("redis: "), "{text}");

    let missing = Command::new(ENGINES).arg("check").env("PG_BIN", "/nonexistent").output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stdout).contains("PG_BIN"));
}
