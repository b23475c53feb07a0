//! The end of an erasure: salts, and what `append` keeps of a person beside the log.

use events::{TenantId, invitation_scope};
use tokio_postgres::{Client, GenericClient};

use super::Erased;
use crate::AuditError;

/// Deletes the salts of who was erased, and the rows beside the log. `client` is the owner of the schema.
///
/// # Errors
/// When an event names the user that was not erased, because it came meanwhile or is not sealed yet, or the user is a
/// member again: nothing is deleted then.
pub async fn forget(client: &mut Client, tenant_id: TenantId, erased: &Erased) -> Result<(), AuditError> {
    let subjects: Vec<&String> = erased.subjects.iter().collect();
    let transaction = client.transaction().await?;
    // The notary takes salts in the transaction that holds this row; `append` adds a user in the one that holds theirs.
    transaction.query_one("select from notary for update", &[]).await?;
    transaction
        .query(
            "select from users where tenant_id = $1 and user_id = any ($2) for update",
            &[&tenant_id.0, &subjects],
        )
        .await?;
    refuse_members(&transaction, tenant_id, erased).await?;
    let left: i64 = transaction
        .query_one(
            "select count(*) from events where tenant_id = $1 and (user_id = any ($2) or data ->> 'by' = any ($2))",
            &[&tenant_id.0, &subjects],
        )
        .await?
        .get(0);
    if left > 0 {
        let why = format!("{left} events are not sealed yet, or came meanwhile: the salts stay, try again");
        return Err(AuditError::NotSealed(why));
    }
    let scope = invitation_scope(tenant_id);
    transaction
        .execute("delete from names where scope = $1 and name = any ($2)", &[&scope, &erased.emails])
        .await?;
    for sql in [
        "delete from salts where tenant_id = $1 and subject = any ($2)",
        "delete from users where tenant_id = $1 and user_id = any ($2)",
        "delete from idempotency_keys where tenant_id = $1 and user_id = any ($2)",
    ] {
        transaction.execute(sql, &[&tenant_id.0, &subjects]).await?;
    }
    // Folded states may name the person; without them a pool is folded from its beginning.
    let snapshots =
        "delete from snapshots s using streams t where t.stream_id = s.stream_id and t.tenant_id = $1";
    transaction.execute(snapshots, &[&tenant_id.0]).await?;
    transaction.commit().await?;
    Ok(())
}

/// Whoever is a member goes on being named by what comes.
pub(super) async fn refuse_members(
    client: &impl GenericClient,
    tenant_id: TenantId,
    erased: &Erased,
) -> Result<(), AuditError> {
    let subjects: Vec<&String> = erased.subjects.iter().collect();
    let member: Option<String> = client
        .query_one(
            "select coalesce((select user_id from users where tenant_id = $1 and user_id = any ($2) and not removed limit 1),
               (select user_id from seats where tenant_id = $1 and user_id = any ($2) limit 1))",
            &[&tenant_id.0, &subjects],
        )
        .await?
        .get(0);
    member.map_or(Ok(()), |user| {
        Err(AuditError::Refused(format!(
            "user {user:?} is a member of the tenant, or holds a seat: remove the user first"
        )))
    })
}
