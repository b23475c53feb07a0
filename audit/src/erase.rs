//! Erases a person from a tenant's log as far as its form allows: personal fields become the commitments that are in
//! the sealed leaves, then the salts go. The trees stay, every proof stays, and no guess can be tested any more.
//!
//! In steps that may be repeated: archived files first, each replaced as a whole; then the events, a page at a time; at
//! the end, in one transaction, salts and what `append` keeps of the person. Until that end nothing is lost that a
//! repetition needs. A field that was erased needs no salt, so the log verifies at every moment between.

mod archived;
mod forget;

use std::collections::BTreeSet;
use std::path::Path;

use events::{Position, TenantId, email_key};
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::AuditError;
use crate::personal::{ERASED, MissingSalt, Salts, personal_data, subject_of};
use crate::stored::{COLUMNS, StoredEvent};

pub use forget::forget;

/// Events of one transaction.
const PAGE: i64 = 1_000;

/// Who was erased, and how much named them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// The user, and the ids under which an invitation of the same email waited.
    pub subjects: BTreeSet<String>,
    /// Events that were rewritten now, archived ones apart.
    pub events: u64,
    /// Archived events that were rewritten now.
    pub archived: u64,
    /// Other users of the tenant who have the same email: nothing of theirs was erased.
    pub same_email: Vec<String>,
    /// The emails of the subjects, as they are compared.
    emails: Vec<String>,
}

/// Rewrites what names a user in the events of a tenant, and in the files of a folder of archives. `client` is the owner
/// of the schema. Then the read models are to be folded anew, and [`forget`] ends it.
///
/// # Errors
/// When nothing names the user, or the user was not removed or holds a seat; when archived heartbeats may name the user
/// and their files are not given; when the database or a file fails: repeat it.
pub async fn erase(
    client: &mut Client,
    tenant_id: TenantId,
    user: &str,
    archives: Option<&Path>,
) -> Result<Erased, AuditError> {
    let mut erased = Erased::default();
    find(client, tenant_id, user, &mut erased).await?;
    forget::refuse_members(client, tenant_id, &erased).await?;
    let salts = salts_of(client, tenant_id, &erased).await?;
    let files = archived::files(client, tenant_id, archives).await?;
    for file in &files {
        erased.archived += archived::rewrite(file, tenant_id, &erased.subjects, &salts)?;
    }
    erased.events = rewrite(client, tenant_id, &erased.subjects, &salts).await?;
    Ok(erased)
}

/// Everybody who is erased: the user, and whoever was invited by the user's emails and removed when the user came.
async fn find(
    client: &Client,
    tenant_id: TenantId,
    user: &str,
    erased: &mut Erased,
) -> Result<(), AuditError> {
    let emails = client
        .query(
            "select email from users where tenant_id = $1 and user_id = $2 and email is not null
             union
             select data ->> 'email' from events_decision
             where tenant_id = $1 and user_id = $2 and data ->> 'email' is not null",
            &[&tenant_id.0, &user],
        )
        .await?;
    let emails: BTreeSet<String> = emails.iter().map(|row| email_key(row.get(0))).collect();
    erased.emails = emails.into_iter().filter(|email| !email.starts_with(ERASED)).collect();
    erased.subjects.insert(user.to_owned());
    let others = client
        .query(
            "select user_id, removed from users where tenant_id = $1 and lower(email) = any ($2) and user_id <> $3
             order by user_id",
            &[&tenant_id.0, &erased.emails, &user],
        )
        .await?;
    for row in &others {
        let other: String = row.get(0);
        if row.get(1) && other.parse::<Uuid>().is_ok() {
            erased.subjects.insert(other);
        } else {
            erased.same_email.push(other);
        }
    }
    let named: bool = client
        .query_one(
            "select exists (select from users where tenant_id = $1 and user_id = $2)
               or exists (select from salts where tenant_id = $1 and subject = $2)
               or exists (select from events where tenant_id = $1 and (user_id = $2 or data ->> 'by' = $2))",
            &[&tenant_id.0, &user],
        )
        .await?
        .get(0);
    if named {
        Ok(())
    } else {
        Err(AuditError::Refused(format!("nothing of tenant {tenant_id} names user {user:?}")))
    }
}

async fn salts_of(client: &Client, tenant_id: TenantId, erased: &Erased) -> Result<Salts, AuditError> {
    let subjects: Vec<&String> = erased.subjects.iter().collect();
    let rows = client
        .query(
            "select subject, salt from salts where tenant_id = $1 and subject = any ($2)",
            &[&tenant_id.0, &subjects],
        )
        .await?;
    let mut salts = Salts::default();
    rows.iter().for_each(|row| salts.insert(row.get(0), row.get(1)));
    Ok(salts)
}

/// The events that are leaves already: what comes after them has no commitment yet.
async fn rewrite(
    client: &mut Client,
    tenant_id: TenantId,
    subjects: &BTreeSet<String>,
    salts: &Salts,
) -> Result<u64, AuditError> {
    let names: Vec<&String> = subjects.iter().collect();
    let page = format!(
        "select {COLUMNS} from events
         where tenant_id = $1 and (xid, position) > ($2::bigint::text::xid8, $3)
           and (xid, position) <= (select n.xid, n.position from notary n)
           and (user_id = any ($4) or data ->> 'by' = any ($4))
         order by events.xid, events.position limit $5"
    );
    let (mut after, mut count) = (Position::default(), 0);
    loop {
        let rows = client.query(&page, &[&tenant_id.0, &after.xid, &after.position, &names, &PAGE]).await?;
        let Some(last) = rows.last() else { return Ok(count) };
        after = StoredEvent::of_row(last).1;
        let mut new = Columns::default();
        for (event, _) in rows.iter().map(StoredEvent::of_row) {
            let erased = erased_of(&event, subjects, salts).map_err(AuditError::unreadable)?;
            new.classes.push(erased.class);
            new.ids.push(erased.event_id);
            new.users.push(erased.user_id);
            new.machines.push(erased.hardware_id);
            new.data.push(erased.data);
        }
        count += client
            .execute(
                "update events e set user_id = n.user_id, hardware_id = n.hardware_id, data = n.data
                 from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[])
                   n (class, event_id, user_id, hardware_id, data)
                 where e.class = n.class and e.event_id = n.event_id",
                &[&new.classes, &new.ids, &new.users, &new.machines, &new.data],
            )
            .await?;
    }
}

/// Events of a page, by column.
#[derive(Default)]
struct Columns {
    classes: Vec<String>,
    ids: Vec<Uuid>,
    users: Vec<Option<String>>,
    machines: Vec<Option<String>>,
    data: Vec<Value>,
}

/// The event with everything erased that a salt of the subjects covers.
fn erased_of(
    event: &StoredEvent,
    subjects: &BTreeSet<String>,
    salts: &Salts,
) -> Result<StoredEvent, MissingSalt> {
    let erase = |field: &str, value: &str| {
        let subject = subject_of(event, field);
        let covered = subjects.contains(subject);
        covered.then(|| salts.commit(subject, field, value).map(|hash| format!("{ERASED}{hash}"))).transpose()
    };
    let mut new = event.clone();
    for (field, value, place) in [
        ("user_id", &event.user_id, &mut new.user_id),
        ("hardware_id", &event.hardware_id, &mut new.hardware_id),
    ] {
        if let Some(value) = value
            && let Some(erased) = erase(field, value)?
        {
            *place = Some(erased);
        }
    }
    for (field, value) in personal_data(event) {
        if let (Some(erased), Some(place)) = (erase(field, value)?, new.data.get_mut(field)) {
            *place = Value::String(erased);
        }
    }
    Ok(new)
}
