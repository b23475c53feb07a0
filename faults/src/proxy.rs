//! A TCP proxy that misbehaves on request: it cuts, resets, delays, falls silent, or loses answers.
//!
//! It knows no protocol. What it does to bytes is the same for Postgres, Redis and HTTP; only [`Proxy::lose_answers`]
//! looks for a marker in what is asked, so that a test can lose the answer of one kind of request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 64 * 1024;

/// Where a proxy leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// What is done to connections now.
#[derive(Debug, Clone)]
struct Rules {
    upstream: Upstream,
    /// Connections of an earlier generation are reset.
    generation: u64,
    /// New connections are closed at once.
    refuse: bool,
    /// Nothing is passed on, either way, and nothing is closed.
    silent: bool,
    /// What the other side answers is thrown away.
    swallow: bool,
    /// Before each piece is passed on.
    delay: Duration,
    /// Requests with these bytes lose their answer, so many of them.
    marker: Vec<u8>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    cut: AtomicU64,
    lost: AtomicU64,
    to_lose: AtomicU64,
    held: AtomicU64,
}

/// A proxy on a port of the loopback.
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    counts: Arc<Counts>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.rules.send_modify(|rules| rules.generation += 1);
    }
}

impl Proxy {
    /// Listens on a free port, and passes everything on.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: Upstream) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (rules, now) = watch::channel(Rules {
            upstream,
            generation: 0,
            refuse: false,
            silent: false,
            swallow: false,
            delay: Duration::ZERO,
            marker: Vec::new(),
        });
        let counts = Arc::<Counts>::default();
        let listening = tokio::spawn(listen(listener, now, counts.clone()));
        Ok(Self { address, rules, counts, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes everything on from now, also on connections that were silent.
    pub fn heal(&self) {
        self.counts.to_lose.store(0, Ordering::Relaxed);
        self.rules.send_modify(|rules| {
            rules.refuse = false;
            rules.silent = false;
            rules.swallow = false;
            rules.delay = Duration::ZERO;
            rules.marker.clear();
        });
    }

    /// Resets all connections, and refuses new ones until healed.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| {
            rules.generation += 1;
            rules.refuse = true;
        });
    }

    /// Resets all connections; new ones are passed on.
    pub fn reset(&self) {
        self.rules.send_modify(|rules| rules.generation += 1);
    }

    /// Half-open: connections stand, new ones too, and nobody hears anything.
    pub fn silence(&self) {
        self.rules.send_modify(|rules| rules.silent = true);
    }

    /// Requests arrive, answers do not.
    pub fn swallow_answers(&self) {
        self.rules.send_modify(|rules| rules.swallow = true);
    }

    /// Each piece waits so long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.rules.send_modify(|rules| rules.delay = delay);
    }

    /// The next `count` requests that contain `marker` are passed on, and their connections are reset in place of the
    /// answer.
    pub fn lose_answers(&self, marker: &[u8], count: u64) {
        self.counts.to_lose.store(count, Ordering::Relaxed);
        self.rules.send_modify(|rules| rules.marker = marker.to_vec());
    }

    /// Leads elsewhere: all connections are reset.
    pub fn lead_to(&self, upstream: Upstream) {
        self.rules.send_modify(|rules| {
            rules.upstream = upstream;
            rules.generation += 1;
        });
    }

    /// Connections reset so far.
    pub fn cuts(&self) -> u64 {
        self.counts.cut.load(Ordering::Relaxed)
    }

    /// Answers that were lost or swallowed so far.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Pieces that were held back (delayed, or silent) so far.
    pub fn held(&self) -> u64 {
        self.counts.held.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }
}

async fn listen(listener: TcpListener, rules: watch::Receiver<Rules>, counts: Arc<Counts>) {
    while let Ok((client, _)) = listener.accept().await {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        if rules.borrow().refuse {
            reset(client);
            continue;
        }
        tokio::spawn(connect(client, rules.clone(), counts.clone()));
    }
}

/// Closes with a reset: no orderly end is announced.
fn reset(client: TcpStream) {
    // If it cannot be set the connection just closes, which is a fault as well.
    let _ = client.set_zero_linger();
    drop(client);
}

async fn connect(client: TcpStream, rules: watch::Receiver<Rules>, counts: Arc<Counts>) {
    let _ = client.set_nodelay(true);
    let upstream = rules.borrow().upstream.clone();
    match upstream {
        Upstream::Tcp(address) => match TcpStream::connect(address).await {
            Ok(server) => {
                let _ = server.set_nodelay(true);
                let (from, to) = server.into_split();
                join(client, from, to, rules, counts).await;
            }
            Err(_) => reset(client),
        },
        Upstream::Unix(path) => match UnixStream::connect(path).await {
            Ok(server) => {
                let (from, to) = server.into_split();
                join(client, from, to, rules, counts).await;
            }
            Err(_) => reset(client),
        },
    }
}

/// One connection, until either side ends it or it is reset.
async fn join(
    mut client: TcpStream,
    from_server: impl AsyncRead + Unpin,
    to_server: impl AsyncWrite + Unpin,
    rules: watch::Receiver<Rules>,
    counts: Arc<Counts>,
) {
    let mine = rules.borrow().generation;
    let mut changes = rules.clone();
    // Set by a request whose answer is to be lost, read by the way back.
    let (doom, doomed) = watch::channel(false);
    let was_cut = {
        let (from_client, to_client) = client.split();
        let up = Pump { rules: rules.clone(), counts: &counts, doom: Some(doom), doomed: None };
        let down = Pump { rules, counts: &counts, doom: None, doomed: Some(doomed) };
        tokio::select! {
            _ = changes.wait_for(|rules| rules.generation != mine) => true,
            ended = up.run(from_client, to_server) => ended == End::Reset,
            ended = down.run(from_server, to_client) => ended == End::Reset,
        }
    };
    if was_cut {
        counts.cut.fetch_add(1, Ordering::Relaxed);
        reset(client);
    }
}

#[derive(PartialEq, Eq)]
enum End {
    /// One side closed it.
    Closed,
    /// It is to be reset.
    Reset,
}

/// One direction of a connection.
struct Pump<'a> {
    rules: watch::Receiver<Rules>,
    counts: &'a Counts,
    doom: Option<watch::Sender<bool>>,
    doomed: Option<watch::Receiver<bool>>,
}

impl Pump<'_> {
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> End {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(length) => length,
            };
            let piece = &buffer[..length];
            self.hold().await;
            if let Some(doom) = &self.doom
                && self.takes_one(piece)
            {
                let _ = doom.send(true);
            }
            if let Some(doomed) = &self.doomed {
                if *doomed.borrow() {
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    return End::Reset;
                }
                if self.rules.borrow().swallow {
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            if to.write_all(piece).await.is_err() {
                return End::Closed;
            }
        }
    }

    /// Waits as long as the rules say.
    async fn hold(&mut self) {
        let (silent, delay) = {
            let rules = self.rules.borrow();
            (rules.silent, rules.delay)
        };
        if silent || delay > Duration::ZERO {
            self.counts.held.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(delay).await;
        let _ = self.rules.wait_for(|rules| !rules.silent).await;
    }

    /// Whether this request is one of those that lose their answer.
    fn takes_one(&self, piece: &[u8]) -> bool {
        let rules = self.rules.borrow();
        let marker = &rules.marker;
        if marker.is_empty() || !piece.windows(marker.len()).any(|window| window == marker) {
            return false;
        }
        let one_less = |left: u64| left.checked_sub(1);
        self.counts.to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}
