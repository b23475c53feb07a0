//! A real Redis is started, frozen, killed, started again, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use engines::{Redis, RedisOptions, Scratch, Signal};

async fn fresh() -> (Redis, Scratch) {
    let scratch = Scratch::new().unwrap();
    let redis = Redis::start(RedisOptions::new(scratch.path().join("redis"))).await.unwrap();
    (redis, scratch)
}

fn connect(redis: &Redis) -> UnixStream {
    let stream = UnixStream::connect(redis.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stream
}

/// Sends an inline command and returns what comes back first, if anything does.
fn ask(mut stream: impl Read + Write, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[tokio::test]
async fn it_answers_and_evicts_nothing() {
    let (redis, _scratch) = fresh().await;
    assert_eq!(redis.url(), format!("redis+unix://{}", redis.socket().display()));
    assert_eq!(ask(connect(&redis), "PING").unwrap(), "+PONG\r\n");
    assert!(ask(connect(&redis), "CONFIG GET maxmemory-policy").unwrap().contains("noeviction"));
    assert!(ask(connect(&redis), "CONFIG GET save").unwrap().ends_with("$0\r\n\r\n"));
}

#[tokio::test]
async fn a_killed_one_starts_again_empty() {
    let (redis, _scratch) = fresh().await;
    assert_eq!(ask(connect(&redis), "SET k v").unwrap(), "+OK\r\n");
    let before = connect(&redis);
    redis.signal(Signal::Kill).unwrap();
    assert!(!redis.is_running());
    assert!(ask(&before, "PING").is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock));
    redis.start_again().await.unwrap();
    assert_eq!(ask(connect(&redis), "GET k").unwrap(), "$-1\r\n");
    redis.restart().await.unwrap();
    redis.stop_immediately().await.unwrap();
    redis.start_again().await.unwrap();
    assert_eq!(ask(connect(&redis), "PING").unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn a_persistent_one_keeps_its_keys() {
    let scratch = Scratch::new().unwrap();
    let options = RedisOptions::new(scratch.path().join("redis")).persistent();
    let redis = Redis::start(options.clone()).await.unwrap();
    assert_eq!(ask(connect(&redis), "SET k v").unwrap(), "+OK\r\n");
    drop(redis);
    let redis = Redis::start(options).await.unwrap();
    assert_eq!(ask(connect(&redis), "GET k").unwrap(), "$1\r\nv\r\n");
    drop(redis);
    // Without persistence the same directory is empty.
    let redis = Redis::start(RedisOptions::new(scratch.path().join("redis"))).await.unwrap();
    assert_eq!(ask(connect(&redis), "GET k").unwrap(), "$-1\r\n");
}

#[tokio::test]
async fn a_frozen_one_answers_when_it_is_thawed() {
    let (redis, _scratch) = fresh().await;
    let stream = connect(&redis);
    redis.signal(Signal::Stop).unwrap();
    assert_eq!(ask(&stream, "PING").unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    redis.signal(Signal::Continue).unwrap();
    let mut answer = [0; 7];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test]
async fn it_ends_with_its_value_even_when_frozen() {
    for freeze in [false, true] {
        let (redis, scratch) = fresh().await;
        let pid = redis.pid();
        if freeze {
            redis.signal(Signal::Stop).unwrap();
        }
        drop(redis);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_port_is_named_in_the_url() {
    let scratch = Scratch::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redis = Redis::start(RedisOptions::new(scratch.path().join("redis")).port(port)).await.unwrap();
    let address = redis.url().strip_prefix("redis://").unwrap().to_owned();
    assert_eq!(ask(TcpStream::connect(address).unwrap(), "PING").unwrap(), "+PONG\r\n");
}
