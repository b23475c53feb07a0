//! A change of a license's terms: all or nothing, in a statement of its own, because it may hold or let go a name.

use events::{Event, LogError, NameClaim, NewEvent, Refused, StreamWrite, Subject};
use uuid::Uuid;

use super::batch::{Context, Core, Pending};
use super::command::{Answer, Command};
use super::decide::{Refusal, decide};
use super::load::catch_up;
use crate::writer::Job;

/// How often a change is decided again before its caller is told to come back.
const MAX_ROUNDS: u32 = 20;

/// Decides and writes a change; on a conflict catches up and decides again.
///
/// # Errors
/// When the log cannot be read or written.
pub(crate) async fn run(context: &Context, core: &mut Core, pending: Pending) -> Result<(), LogError> {
    let Command::ChangeLicense { change, .. } = &pending.command else { return Ok(()) };
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
        let job = job(core, &proposed, change.active, pending.request_id.clone());
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
        .map(|(subject, event)| NewEvent {
            event_id: Uuid::now_v7(),
            subject: subject.clone(),
            event: event.clone(),
            request_id: request_id.clone(),
            key: None,
            give_back: false,
        })
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
