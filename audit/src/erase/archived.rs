//! The files of archived heartbeats: each that names the person is written anew and put in its place.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use events::TenantId;
use tokio_postgres::Client;

use super::erased_of;
use crate::AuditError;
use crate::export::{EventSink, ParquetEvents, read_parquet};
use crate::personal::Salts;

/// The files that hold heartbeats of a tenant; all of them must be there before any is touched.
pub(super) async fn files(
    client: &Client,
    tenant_id: TenantId,
    folder: Option<&Path>,
) -> Result<Vec<PathBuf>, AuditError> {
    let sql = "select name from archived_leaves where tenant_id = $1 order by name";
    let rows = client.query(sql, &[&tenant_id.0]).await?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let Some(folder) = folder else {
        return if names.is_empty() {
            Ok(Vec::new())
        } else {
            let why = format!(
                "archived heartbeats may name the user, too: give the folder of {}",
                names.join(", ")
            );
            Err(AuditError::Refused(why))
        };
    };
    let files: Vec<PathBuf> = names.iter().map(|name| folder.join(format!("{name}.parquet"))).collect();
    for file in &files {
        File::open(file).map_err(AuditError::file(file))?;
    }
    Ok(files)
}

/// Writes a file anew without the person; answers how many of its events changed. One that does not name the person
/// stays as it is.
pub(super) fn rewrite(
    file: &Path,
    tenant_id: TenantId,
    subjects: &BTreeSet<String>,
    salts: &Salts,
) -> Result<u64, AuditError> {
    let open = || File::open(file).map_err(AuditError::file(file));
    let beside = file.with_extension("parquet.part");
    let output = File::create(&beside).map_err(AuditError::file(&beside))?;
    let mut sink = ParquetEvents::new(output)?;
    let mut changed = 0;
    read_parquet(open()?, |event| {
        if event.tenant_id != tenant_id.0 {
            return sink.event(&event);
        }
        let erased = erased_of(&event, subjects, salts).map_err(AuditError::unreadable)?;
        if erased == event {
            return sink.event(&event);
        }
        changed += 1;
        sink.event(&erased)
    })?;
    let output = sink.finish()?;
    if changed == 0 {
        drop(output);
        std::fs::remove_file(&beside).map_err(AuditError::file(&beside))?;
        return Ok(0);
    }
    output.sync_all().map_err(AuditError::file(&beside))?;
    std::fs::rename(&beside, file).map_err(AuditError::file(file))?;
    if let Some(folder) = file.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(AuditError::file(folder))?;
    }
    Ok(changed)
}
