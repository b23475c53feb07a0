//! A tenant's export, without the server: events in one file, checkpoints and leaf index in another.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use merkle::Digest;
use uuid::Uuid;

use super::archives::Archives;
use super::chain::{Chain, Heads, signatures};
use super::files::{ArchivedLine, Kept, LeafLine, leaves};
use super::merge::{Hashed, Merge, Parting, Runs, Sealed, hash_one};
use super::{Finding, Report, Wrong};
use crate::AuditError;
use crate::checkpoint::Checkpoint;
use crate::keys::PublicKeys;
use crate::personal::Salts;
use crate::stored::StoredEvent;

/// Lines that are parsed and hashed at a time, on all cores.
const BATCH: usize = 8_192;

/// What to verify, and against what.
#[derive(Debug, Clone)]
pub struct OfflineOptions {
    /// Events: NDJSON as `export --what events` writes it.
    pub export: PathBuf,
    /// Checkpoints, heads and leaf index: NDJSON as `export --what checkpoints` writes it.
    pub checkpoints: PathBuf,
    /// Keys from elsewhere.
    pub keys: PublicKeys,
    /// Checkpoints that somebody kept.
    pub kept: Vec<Kept>,
    /// Where archived heartbeats are: `None` trusts their sealed hashes.
    pub archives: Option<PathBuf>,
}

/// Verifies an export.
///
/// # Errors
/// When a file cannot be read. What is wrong is in the report.
pub fn verify_export(options: &OfflineOptions) -> Result<Report, AuditError> {
    let mut report = Report { tenants: 1, ..Report::default() };
    let (tenant_id, sealed) = match check_checkpoints(options, &mut report)? {
        Ok(found) => found,
        Err(finding) => {
            report.findings.push(finding);
            return Ok(report);
        }
    };
    let mut merge = Merge::new(tenant_id, sealed, archived(options, tenant_id)?);
    let mut index = LeafLines::open(&options.checkpoints)?;
    let mut events = EventLines::open(&options.export)?;
    let mut turns = Turns::default();
    loop {
        if merge.wants_leaves() {
            match index.next()? {
                Some(more) => merge.leaves.extend(more),
                None => merge.no_more_leaves = true,
            }
        }
        if merge.wants_events() {
            match events.next()? {
                Some(more) => {
                    turns.follow(&more);
                    merge.events.extend(more);
                }
                None => merge.no_more_events = true,
            }
        }
        merge.advance();
        if merge.is_done() || !merge.wants_leaves() && !merge.wants_events() {
            break;
        }
    }
    merge.finish();
    report.events = merge.recomputed;
    report.not_recomputed = merge.skipped;
    report.erased = merge.erased;
    let finding = match (merge.finding.take(), merge.parting.take()) {
        (Some(finding), _) => Some(finding),
        (None, Some(parting)) => Some(explain(options, &merge, &parting)?),
        (None, None) => match beyond(&merge, &mut events, &mut turns, &mut report)? {
            Some(finding) => Some(finding),
            None => turns
                .out_of_turn
                .map(|(event, detail)| merge.about(Wrong::Reordered, Some(event), None, detail)),
        },
    };
    report.findings.extend(finding);
    Ok(report)
}

/// The decisions of each stream, in the order of the log, are its versions from 1 on.
#[derive(Default)]
struct Turns {
    last: HashMap<Uuid, i64>,
    out_of_turn: Option<(Uuid, String)>,
}

impl Turns {
    fn follow(&mut self, events: &[Hashed]) {
        for event in events {
            let Some((stream, version)) = event.version else { continue };
            let last = self.last.insert(stream, version).unwrap_or(0);
            if version != last + 1 && self.out_of_turn.is_none() {
                let detail = format!("version {version} of stream {stream} comes after version {last}");
                self.out_of_turn = Some((event.event_id, detail));
            }
        }
    }
}

/// Events after the last leaf: not sealed yet if they say so themselves.
fn beyond(
    merge: &Merge,
    events: &mut EventLines,
    turns: &mut Turns,
    report: &mut Report,
) -> Result<Option<Finding>, AuditError> {
    let mut rest: Vec<Hashed> = merge.events.iter().cloned().collect();
    loop {
        if let Some(extra) = rest.iter().find(|event| event.is_sealed) {
            let detail = "it was never sealed, and stands after the last event that was".to_owned();
            return Ok(Some(merge.about(Wrong::Inserted, Some(extra.event_id), Some(merge.size()), detail)));
        }
        report.unsealed += rest.len() as u64;
        match events.next()? {
            Some(more) => {
                turns.follow(&more);
                rest = more;
            }
            None => return Ok(None),
        }
    }
}

/// Chain and heads of the file: the tenant, and its sealed sizes.
fn check_checkpoints(
    options: &OfflineOptions,
    report: &mut Report,
) -> Result<Result<(Uuid, Vec<Sealed>), Finding>, AuditError> {
    let unreadable =
        |what: &str| AuditError::unreadable(format!("{}: {what}", options.checkpoints.display()));
    let (mut public, mut own): (Vec<Checkpoint>, Vec<_>) = (Vec::new(), Vec::new());
    for kept in super::read_kept(&options.checkpoints)? {
        match kept {
            Kept::Public(checkpoint) => public.push(checkpoint),
            Kept::Tenant(head) => own.push(*head),
        }
    }
    let mut chain = Chain::new(&options.keys, &options.kept);
    let signed = signatures(&public, &options.keys)?;
    for (checkpoint, signed) in public.iter().zip(signed) {
        if let Some(finding) = chain.next(checkpoint, signed)? {
            return Ok(Err(finding));
        }
    }
    if let Some(finding) = chain.finish()? {
        return Ok(Err(finding));
    }
    report.checkpoints = chain.count;
    let tenant_id =
        own.first().map(|own| own.head.tenant_id).ok_or_else(|| unreadable("no tenant's head in it"))?;
    let (mut heads, mut sealed) = (Heads::default(), Vec::new());
    for one in &own {
        let number = one.head.number;
        let wrong = |detail: &str| Finding {
            tenant_id: Some(tenant_id),
            ..super::chain::about(Wrong::CheckpointChanged, number, detail.to_owned())
        };
        let standing = usize::try_from(number).ok().and_then(|number| public.get(number.checked_sub(1)?));
        if one.head.tenant_id != tenant_id {
            return Err(unreadable("heads of more than one tenant"));
        }
        if standing != Some(&one.checkpoint) {
            return Ok(Err(wrong("the head names a checkpoint that is not in the chain")));
        }
        if !one.hangs_together()? {
            return Ok(Err(wrong("the head is not below its public checkpoint")));
        }
        if let Some(finding) =
            heads.next(&one.head)?.or_else(|| super::chain::against_kept(&options.kept, &one.head))
        {
            return Ok(Err(finding));
        }
        sealed.push(Sealed { size: one.head.size, root: one.head.root.0, number });
    }
    let newest = sealed.last().map_or(0, |sealed| sealed.number);
    if newest < chain_end(&public) {
        report.notes.push(format!(
            "the tenant's newest head is below checkpoint {newest}, the chain goes on to {}: that nothing was cut from \
             the end since is proved only by a later head of the tenant's own (GET …/tenants/ID/checkpoints), kept \
             elsewhere and given as --kept",
            chain_end(&public)
        ));
    }
    Ok(Ok((tenant_id, sealed)))
}

fn chain_end(public: &[Checkpoint]) -> u64 {
    public.last().map_or(0, |checkpoint| checkpoint.number)
}

/// What the file of checkpoints says is archived. Each file that it names must be there, if the folder is given.
fn archived(options: &OfflineOptions, tenant_id: Uuid) -> Result<Archives, AuditError> {
    let (mut lines, mut text) = (Lines::open(&options.checkpoints)?, String::new());
    let mut archives = Archives::default();
    let mut salts: Option<Arc<Salts>> = None;
    while lines.next(&mut text)? {
        if text.contains("\"archived\"") {
            let line: ArchivedLine = serde_json::from_str(&text).map_err(|error| lines.unreadable(&error))?;
            let runs = STANDARD.decode(&line.runs).map_err(|error| lines.unreadable(&error))?;
            let file = options.archives.as_deref().map(|folder| line.file_in(folder)).transpose();
            let file = file.map_err(|error| lines.unreadable(&error))?;
            let salts = match (&file, &salts) {
                (None, _) => Arc::default(),
                (Some(file), known) => {
                    File::open(file).map_err(AuditError::file(file))?;
                    match known {
                        Some(known) => known.clone(),
                        None => salts.insert(Arc::new(exported_salts(&options.export)?)).clone(),
                    }
                }
            };
            archives.add(tenant_id, Runs::from_bytes(&runs), salts, file);
        }
    }
    Ok(archives)
}

/// Every salt of an export. A heartbeat's user was once granted a seat, and decisions are never archived: so the salts
/// of archived heartbeats are among those of the exported events.
fn exported_salts(export: &Path) -> Result<Salts, AuditError> {
    let mut all = Salts::default();
    let mut events = EventLines::open(export)?;
    while let Some(page) = events.next_events(|event| Salts::of(&event))? {
        page.into_iter().for_each(|salts| all.extend(salts));
    }
    Ok(all)
}

fn explain(options: &OfflineOptions, merge: &Merge, parting: &Parting) -> Result<Finding, AuditError> {
    let mut exists = false;
    let mut events = EventLines::open(&options.export)?;
    while let (false, Some(page)) = (exists, events.next()?) {
        exists = page.iter().any(|event| event.event_id == parting.expected);
    }
    let mut sealed = false;
    let mut index = LeafLines::open(&options.checkpoints)?;
    while let (false, Some(found), Some(page)) = (sealed, parting.found, index.next()?) {
        sealed = page.iter().any(|(id, _)| *id == found);
    }
    Ok(merge.explain(parting, exists, sealed))
}

/// Lines of a file.
struct Lines {
    file: String,
    reader: BufReader<File>,
    number: usize,
}

impl Lines {
    fn open(file: &Path) -> Result<Self, AuditError> {
        let opened = File::open(file).map_err(AuditError::file(file))?;
        Ok(Self { file: file.display().to_string(), reader: BufReader::new(opened), number: 0 })
    }

    fn next(&mut self, line: &mut String) -> Result<bool, AuditError> {
        line.clear();
        self.number += 1;
        let file = &self.file;
        let read =
            self.reader.read_line(line).map_err(|source| AuditError::File { file: file.clone(), source })?;
        Ok(read > 0)
    }

    fn unreadable(&self, why: &dyn std::fmt::Display) -> AuditError {
        AuditError::unreadable(format!("{}, line {}: {why}", self.file, self.number))
    }
}

/// The leaf index in a file of checkpoints.
pub(crate) struct LeafLines {
    lines: Lines,
    next: u64,
}

impl LeafLines {
    pub(crate) fn open(file: &Path) -> Result<Self, AuditError> {
        Ok(Self { lines: Lines::open(file)?, next: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Vec<(Uuid, Digest)>>, AuditError> {
        let mut text = String::new();
        while self.lines.next(&mut text)? {
            if !text.contains("\"hashes\"") {
                continue;
            }
            let line: LeafLine =
                serde_json::from_str(&text).map_err(|error| self.lines.unreadable(&error))?;
            if line.first != self.next {
                return Err(self.lines.unreadable(&format!("leaf {} should come here", self.next)));
            }
            let decode = |text: &str| STANDARD.decode(text).map_err(|error| self.lines.unreadable(&error));
            let found: Vec<_> = leaves(&decode(&line.event_ids)?, &decode(&line.hashes)?).collect();
            self.next += found.len() as u64;
            return Ok(Some(found));
        }
        Ok(None)
    }
}

/// The events of an export, hashed.
pub(crate) struct EventLines {
    lines: Lines,
}

impl EventLines {
    pub(crate) fn open(file: &Path) -> Result<Self, AuditError> {
        Ok(Self { lines: Lines::open(file)? })
    }

    /// The next events as they are written.
    pub(crate) fn next_events<T: Send>(
        &mut self,
        each: impl Fn(StoredEvent) -> Result<T, AuditError> + Sync,
    ) -> Result<Option<Vec<T>>, AuditError> {
        let first = self.lines.number + 1;
        let mut texts = Vec::with_capacity(BATCH);
        let mut text = String::new();
        while texts.len() < BATCH && self.lines.next(&mut text)? {
            texts.push(std::mem::take(&mut text));
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = texts.len().div_ceil(cores).max(64);
        let (each, file) = (&each, &self.lines.file);
        let work = |(n, texts): (usize, &[String])| {
            let parse = |(line, text): (usize, &String)| {
                let event = serde_json::from_str(text);
                let line = first + n * share + line;
                each(event.map_err(|error| AuditError::unreadable(format!("{file}, line {line}: {error}")))?)
            };
            texts.iter().enumerate().map(parse).collect::<Result<Vec<T>, AuditError>>()
        };
        std::thread::scope(|scope| {
            let work = &work;
            let shares: Vec<_> =
                texts.chunks(share).enumerate().map(|share| scope.spawn(move || work(share))).collect();
            let mut all = Vec::with_capacity(texts.len());
            for share in shares {
                all.extend(share.join().map_err(|_| AuditError::unreadable("a line could not be read"))??);
            }
            Ok(Some(all))
        })
    }

    fn next(&mut self) -> Result<Option<Vec<Hashed>>, AuditError> {
        self.next_events(|event| Ok(hash_one(&event, &Salts::of(&event)?)))
    }
}
