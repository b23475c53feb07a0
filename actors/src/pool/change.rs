//! A change of a license's terms: all or nothing, in a statement of its own, because it may hold or let go a name, and
//! because the seats of a tenant's first license are its `max_seats`: both streams say so, or neither.

use events::{Event, LogError, NameClaim, NewEvent, Refused, Seats, StreamWrite, Subject, TenantChange};
use uuid::Uuid;

use super::batch::{Context, Core, Pending};
use super::command::{Answer, Command};
use super::decide::{Refusal, decide};
use super::load::catch_up;
use super::state::PoolState;
use crate::writer::Job;

/// How often a change is decided again before its caller is told to come back.
const MAX_ROUNDS: u32 = 20;

/// Decides and writes a change; on a conflict catches up and decides again.
///
/// # Errors
/// When the log cannot be read or written.
pub(crate) async fn run(context: &Context, core: &mut Core, pending: Pending) -> Result<(), LogError> {
    let Command::ChangeLicense { .. } = &pending.command else { return Ok(()) };
    for _ in 0..MAX_ROUNDS {
        let now = context.writer.now();
        let proposed = match decide(&core.state, &pending.command, now, context.ttl) {
            Ok(proposed) => proposed,
            Err(Refusal::Stale) if core.state.terms_version > 0 => {
                let before = core.state.terms_version;
                catch_up(&context.log, &context.writer, &mut core.state).await?;
                if core.state.terms_version == before {
                    let _ = pending.reply.send(Answer::Stale);
                    return Ok(());
                }
                continue;
            }
            Err(_) => return Ok(()),
        };
        // A state that is behind may find that nothing changes where something does.
        let Some((_, Event::LicenseUpdated(change))) = proposed.first() else {
            if catch_up(&context.log, &context.writer, &mut core.state).await? > 0 {
                continue;
            }
            answer(core, pending);
            return Ok(());
        };
        let mut job = job(core, &proposed, change.active, pending.request_id.clone());
        if let Some(seats) = change.seats_total {
            job.streams.extend(max_seats(context, &core.state, seats, pending.request_id.clone()).await?);
        }
        let appended = context.writer.append(job).await?;
        match appended.refused.first() {
            None | Some(Refused::Already { .. }) => {
                for (subject, event) in &proposed {
                    core.state.apply(subject, event, appended.at);
                }
                if context.gate.is_up() {
                    core.mirror.sync(context, &mut core.state).await?;
                }
                answer(core, pending);
                return Ok(());
            }
            Some(Refused::NameTaken { .. }) => {
                let _ = pending.reply.send(Answer::ProductTaken);
                return Ok(());
            }
            Some(_) => {
                catch_up(&context.log, &context.writer, &mut core.state).await?;
            }
        }
    }
    Ok(())
}

/// What the tenant's stream says of the seats of its first license; `None` for its other licenses.
async fn max_seats(
    context: &Context,
    state: &PoolState,
    seats: Seats,
    request_id: Option<String>,
) -> Result<Option<StreamWrite>, LogError> {
    let tenant_id = state.tenant_id;
    if context.log.licenses_of(tenant_id).await?.first() != Some(&state.license_id) {
        return Ok(None);
    }
    let Some(head) = context.log.stream_head(tenant_id.0).await? else { return Ok(None) };
    let change = TenantChange { max_seats: Some(seats), ..TenantChange::default() };
    let event = new_event(Subject::default(), Event::TenantUpdated(change), request_id);
    Ok(Some(StreamWrite {
        stream_id: tenant_id.0,
        tenant_id,
        product: None,
        expected: head.version,
        standing: None,
        events: vec![event],
    }))
}

fn new_event(subject: Subject, event: Event, request_id: Option<String>) -> NewEvent {
    NewEvent { event_id: Uuid::now_v7(), subject, event, request_id, key: None, give_back: false }
}

fn job(core: &Core, proposed: &[(Subject, Event)], active: Option<bool>, request_id: Option<String>) -> Job {
    let state = &core.state;
    let product = state.license.as_ref().map(|license| license.product.clone());
    let names = match (active, &product) {
        (Some(hold), Some(product)) => vec![NameClaim {
            stream_id: state.license_id.0,
            scope: product_scope(state.tenant_id),
            name: product.as_str().to_owned(),
            hold,
        }],
        _ => Vec::new(),
    };
    let events = proposed
        .iter()
        .map(|(subject, event)| new_event(subject.clone(), event.clone(), request_id.clone()))
        .collect();
    let stream = StreamWrite {
        stream_id: state.license_id.0,
        tenant_id: state.tenant_id,
        product,
        expected: state.version,
        standing: None,
        events,
    };
    Job { whole: true, streams: vec![stream], names, heartbeats: Vec::new() }
}

/// The scope in which a tenant's active license holds its product: one active license of a product at a time.
pub(crate) fn product_scope(tenant_id: events::TenantId) -> String {
    format!("product/{tenant_id}")
}

fn answer(core: &Core, pending: Pending) {
    if let Some(license) = core.state.license.clone() {
        let _ = pending.reply.send(Answer::Changed { license, version: core.state.terms_version });
    }
}
