//! A pool's actor: a thin shell round one path (`pool/batch.rs`).
//!
//! Traps of ractor met here. Mailboxes are unbounded: a permit is taken before a command is sent and travels in it.
//! A handler cannot drain its mailbox: commands gather in `waiting` while a batch runs in a task of its own, which owns
//! the reply ports. Heartbeats do not come this way (`pool/beat.rs`).
//! A panic in such a task comes back as a failed completion, and kills the actor on purpose: its supervisor starts
//! another, which loads the pool from its snapshot and the log.

pub(crate) mod batch;
pub(crate) mod beat;
pub(crate) mod change;
pub mod command;
pub mod decide;
pub(crate) mod load;
pub(crate) mod mirror;
pub(crate) mod plan;
pub mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{LicenseId, LogError};
use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tracing::Instrument;

use batch::{Context, Core, Pending};
use beat::Beaten;
use command::Command;

/// Most commands of one batch.
const MAX_BATCH: usize = 512;

/// How many decisions after its last snapshot a pool takes another.
const SNAPSHOT_EVERY: i64 = 1_000;

/// How late after a deadline its timer fires: the seat's own heartbeat may be under way.
const EXPIRY_SLACK: Duration = Duration::from_millis(30);

/// Shortest pause between two timers of a pool, so that a deadline that cannot be ended yet does not spin.
const MIN_TIMER: Duration = Duration::from_millis(100);

/// Heartbeats that the state is told of before others have their turn: a tenth of a millisecond.
const TURN: usize = 64;

/// How long a pool that is asked for heartbeats alone waits before it loads its state, and loads it again if that fails.
const LOAD_AFTER: Duration = Duration::from_secs(1);

/// What a pool's actor is told.
pub(crate) enum Message {
    /// Somebody asks something.
    Ask(Box<Pending>),
    /// The batch under way is over; `Err` says that it panicked.
    Done(Result<Finished, String>),
    /// There are heartbeats that the mirror is to be told of.
    Beaten,
    /// A deadline may have passed, or heartbeats wait to be told to the mirror.
    Timer,
    /// Fails on purpose: what a supervisor does then is tested with it.
    #[cfg(any(test, feature = "fail-points"))]
    Panic,
}

/// What a batch brings back.
pub(crate) struct Finished {
    core: Option<Box<Core>>,
    error: Option<LogError>,
}

/// One pool.
pub(crate) struct Pool {
    pub context: Context,
    pub license_id: LicenseId,
    pub beaten: Arc<Beaten>,
}

/// What the shell keeps. `core` is away while a batch runs.
pub(crate) struct Shell {
    core: Option<Box<Core>>,
    busy: bool,
    waiting: Vec<Pending>,
    /// When the timer fires, and how to stop it.
    timer: Option<(Instant, tokio::task::AbortHandle)>,
    panic_next: bool,
}

impl Actor for Pool {
    type Msg = Message;
    type State = Shell;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Shell, ActorProcessingErr> {
        Ok(Shell { core: None, busy: false, waiting: Vec::new(), timer: None, panic_next: false })
    }

    async fn post_stop(&self, _: ActorRef<Message>, shell: &mut Shell) -> Result<(), ActorProcessingErr> {
        if let Some((_, timer)) = shell.timer.take() {
            timer.abort();
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ask(pending) => shell.waiting.push(*pending),
            Message::Timer => {
                shell.timer = None;
                shell.waiting.push(expire());
            }
            Message::Done(Ok(finished)) => {
                shell.busy = false;
                if let Some(error) = finished.error {
                    tracing::warn!(%error, license_id = %self.license_id, "a batch was not answered");
                }
                shell.core = finished.core;
            }
            Message::Done(Err(panic)) => {
                return Err(format!("pool {} panicked: {panic}", self.license_id).into());
            }
            Message::Beaten => {}
            #[cfg(any(test, feature = "fail-points"))]
            Message::Panic => shell.panic_next = true,
        }
        if !shell.busy {
            self.next(&myself, shell);
        }
        Ok(())
    }
}

impl Pool {
    /// Starts the next batch, or waits for the next deadline.
    fn next(&self, myself: &ActorRef<Message>, shell: &mut Shell) {
        if shell.waiting.is_empty() {
            self.arm(myself, shell);
            return;
        }
        let rest = shell.waiting.split_off(shell.waiting.len().min(MAX_BATCH));
        let batch = std::mem::replace(&mut shell.waiting, rest);
        shell.busy = true;
        let (context, license_id, core) = (self.context.clone(), self.license_id, shell.core.take());
        let beaten = self.beaten.clone();
        let panic = std::mem::take(&mut shell.panic_next);
        let span = span_of(&batch);
        let work = async move {
            fail_if_told(panic);
            work(context, license_id, core, &beaten, batch).await
        };
        spawn(myself, span, work);
    }

    fn arm(&self, myself: &ActorRef<Message>, shell: &mut Shell) {
        let wait = match shell.core.as_ref() {
            Some(core) => {
                let lapse = core.state.next_deadline().map(|deadline| {
                    (deadline.since(self.context.writer.now()) + EXPIRY_SLACK).max(MIN_TIMER)
                });
                let untold = core.mirror.is_behind() || !self.beaten.is_empty();
                let telling = untold.then(|| core.mirror.next_telling(self.context.ttl));
                lapse.into_iter().chain(telling).min()
            }
            // The mirror is told of heartbeats although nobody asks for a seat: that needs the core.
            None => (!self.beaten.is_empty()).then_some(LOAD_AFTER),
        };
        let Some(wait) = wait else { return };
        let at = Instant::now() + wait;
        // Deadlines grow with each heartbeat: a timer that fires early finds nothing, and the next one is set then.
        if shell.timer.as_ref().is_some_and(|(fires, _)| *fires <= at) {
            return;
        }
        if let Some((_, timer)) = shell.timer.take() {
            timer.abort();
        }
        let myself = myself.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let _ = myself.cast(Message::Timer);
        });
        shell.timer = Some((at, timer.abort_handle()));
    }
}

/// Runs a batch in a task of its own, and sends the actor what came of it, be it a panic.
fn spawn(
    myself: &ActorRef<Message>,
    span: tracing::Span,
    work: impl Future<Output = Finished> + Send + 'static,
) {
    let myself = myself.clone();
    // Not an `async` block round the work: that would keep room for it twice.
    // Boxed, for tokio moves what it runs several times.
    let run = std::panic::AssertUnwindSafe(Box::pin(work)).catch_unwind().map(move |done| {
        let done = done.map_err(|panic| match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        });
        // Nobody hears this only if the actor was stopped meanwhile.
        let _ = myself.cast(Message::Done(done));
    });
    tokio::spawn(run.instrument(span));
}

/// The span of a batch's work. It is a child of its first command's; the gate and the append serve the others as well,
/// whose own traces are linked to it.
fn span_of(batch: &[Pending]) -> tracing::Span {
    let first = batch.first().map_or_else(tracing::Span::none, |first| first.span.clone());
    let span = tracing::info_span!(parent: &first, "batch", commands = batch.len());
    for other in batch.iter().skip(1) {
        other.span.follows_from(&span);
    }
    span
}

fn fail_if_told(panic: bool) {
    assert!(!panic, "told to fail");
}

/// Loads the pool if need be, runs its changes one by one and the rest as one batch, and takes a snapshot when due.
async fn work(
    context: Context,
    license_id: LicenseId,
    core: Option<Box<Core>>,
    beaten: &Beaten,
    batch: Vec<Pending>,
) -> Finished {
    let mut core = match core {
        Some(core) => core,
        None => match Core::load(&context, license_id).await {
            Ok(Some(core)) => Box::new(core),
            Ok(None) => return Finished { core: None, error: None },
            Err(error) => return Finished { core: None, error: Some(error) },
        },
    };
    tell(&mut core, beaten).await;
    let (changes, rest): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|one| matches!(one.command, Command::ChangeLicense { .. }));
    let mut error = None;
    for pending in changes {
        error = change::run(&context, &mut core, pending).await.err();
    }
    if !rest.is_empty() {
        error = batch::run(&context, &mut core, rest).await.err().or(error);
    }
    if core.state.version - core.snapshot_version >= SNAPSHOT_EVERY.max(i64::from(core.state.used())) {
        core.snapshot_version = core.state.version;
        tokio::spawn(save_snapshot(context, core.state.clone()));
    }
    Finished { core: Some(core), error }
}

/// What heartbeats moved: deadlines in the state, and in the mirror when its turn comes. Of a busy pool that is much at a
/// time, so others have their turn meanwhile.
async fn tell(core: &mut Core, beaten: &Beaten) {
    let beaten = beaten.take();
    for (index, (session_id, deadline)) in beaten.iter().enumerate() {
        core.state.extend(*session_id, *deadline);
        if (index + 1).is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    core.mirror.note(beaten.into_keys());
}

async fn save_snapshot(context: Context, state: state::PoolState) {
    if let Err(error) = load::save(&context.log, state).await {
        tracing::warn!(%error, "a snapshot was not saved");
    }
}

/// The timer's own command; nobody waits for its answer, and it needs no permit.
fn expire() -> Pending {
    let (reply, ignored) = oneshot::channel();
    // Kept open, so that the batch does not take the command for abandoned.
    tokio::spawn(async move {
        let _ = ignored.await;
    });
    Pending {
        command: Command::Expire { overdue: false },
        request_id: None,
        deadline: Instant::now() + Duration::from_secs(10),
        reply,
        preview: None,
        pass: None,
        span: tracing::Span::none(),
        _permit: None,
    }
}
