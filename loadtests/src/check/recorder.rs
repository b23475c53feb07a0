//! Keeps the history while it happens: in memory, and as JSON lines in a file.
//!
//! A line is written when a request is sent (`invoke`) and when it is over (`ok`, `refused`, `unknown`), so
//! that a run that dies leaves what it knew.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::history::{Act, Call, Fault, FaultKind, Moment, Origin, Outcome};

/// How many calls are looked through for one that will do.
const LOOK_BACK: usize = 2_000;

/// Who asks for what, why, and where.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub actor: String,
    pub tenant: String,
    pub user: String,
    pub act: Act,
    pub origin: Origin,
    pub replica: usize,
}

pub(crate) struct Recorder {
    run: String,
    start: Instant,
    pub(crate) began: SystemTime,
    next: AtomicU64,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<Fault>>,
    file: Option<Mutex<BufWriter<File>>>,
}

impl Recorder {
    pub fn new(seed: u64, file: Option<&Path>) -> Result<Self> {
        let began = SystemTime::now();
        let since_epoch = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let file = match file {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
                Some(Mutex::new(BufWriter::new(file)))
            }
            None => None,
        };
        let recorder = Self {
            run: format!("{:x}", since_epoch.as_millis()),
            start: Instant::now(),
            began,
            next: AtomicU64::new(0),
            calls: Mutex::default(),
            faults: Mutex::default(),
            file,
        };
        recorder.line(&json!({"event": "begin", "seed": seed, "unix_ms": since_epoch.as_millis() as u64}));
        Ok(recorder)
    }

    /// What sets this run's users, machines and keys apart from any other run's.
    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A request is about to be sent.
    pub fn invoke(&self, asked: &Asked) -> (u64, String, Moment) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("check-{}-{id}", self.run);
        let sent = self.now();
        self.line(&json!({
            "event": "invoke", "id": id, "at_us": sent, "actor": asked.actor, "tenant": asked.tenant,
            "user": asked.user, "replica": asked.replica, "request_id": request_id, "act": asked.act,
            "origin": asked.origin,
        }));
        (id, request_id, sent)
    }

    /// It is over.
    pub fn done(&self, id: u64, request_id: String, sent: Moment, asked: Asked, outcome: Outcome) {
        let done = self.now();
        if self.file.is_some() {
            let mut line = serde_json::to_value(&outcome).unwrap_or_default();
            if let Some(line) = line.as_object_mut() {
                let event = line.remove("outcome").unwrap_or_default();
                line.insert("event".into(), event);
                line.insert("id".into(), id.into());
                line.insert("at_us".into(), done.0.into());
            }
            self.line(&line);
        }
        let Asked { actor, tenant, user, act, origin, replica } = asked;
        lock(&self.calls).push(Call {
            id,
            request_id,
            actor,
            tenant,
            user,
            act,
            origin,
            replica,
            sent,
            done,
            outcome,
        });
    }

    /// A fault begins; answers its place in the list.
    pub fn fault_begins(&self, name: &str, kind: FaultKind) -> usize {
        let began = self.now();
        self.line(&json!({"event": "fault", "name": name, "at_us": began, "kind": kind}));
        let mut faults = lock(&self.faults);
        faults.push(Fault { name: name.to_owned(), kind, began, healed: None, evidence: None });
        faults.len() - 1
    }

    /// It is repaired.
    pub fn fault_heals(&self, index: usize, evidence: &str) {
        let healed = self.now();
        if let Some(fault) = lock(&self.faults).get_mut(index) {
            fault.healed = Some(healed);
            fault.evidence = Some(evidence.to_owned()).filter(|text| !text.trim().is_empty());
            self.line(&json!({"event": "healed", "name": fault.name, "at_us": healed, "evidence": evidence}));
        }
    }

    pub fn faults(&self) -> Vec<Fault> {
        lock(&self.faults).clone()
    }

    /// The latest calls that are over and satisfy this, at most so many.
    pub fn latest(&self, most: usize, wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        lock(&self.calls)
            .iter()
            .rev()
            .take(LOOK_BACK)
            .filter(|call| wanted(call))
            .take(most)
            .cloned()
            .collect()
    }

    /// All calls that are over, in the order in which they were sent.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = lock(&self.calls).clone();
        calls.sort_by_key(|call| (call.sent, call.id));
        if let Some(file) = &self.file {
            // The file is a courtesy: what counts is in memory.
            let _ = lock(file).flush();
        }
        calls
    }

    fn line(&self, line: &Value) {
        if let Some(file) = &self.file {
            let _ = writeln!(lock(file), "{line}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
