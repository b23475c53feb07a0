//! Events as CSV, for spreadsheets.

use std::io::Write;

use crate::AuditError;
use crate::export::EventSink;
use crate::stored::StoredEvent;

/// The columns, as the first line names them.
const COLUMNS: [&str; 14] = [
    "event_id",
    "cursor",
    "tenant_id",
    "license_id",
    "version",
    "type",
    "session_id",
    "user_id",
    "hardware_id",
    "occurred_at",
    "request_id",
    "data",
    "class",
    "leaf_index",
];

/// Writes events as CSV with a line of names; `data` is JSON.
pub struct CsvEvents<W: Write + Send>(csv::Writer<W>);

fn failed(error: impl std::fmt::Display) -> AuditError {
    AuditError::unreadable(format!("CSV: {error}"))
}

impl<W: Write + Send> CsvEvents<W> {
    /// Begins with the names of the columns.
    ///
    /// # Errors
    /// When the output fails.
    pub fn new(output: W) -> Result<Self, AuditError> {
        let mut writer = csv::Writer::from_writer(output);
        writer.write_record(COLUMNS).map_err(failed)?;
        Ok(Self(writer))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> Result<(), AuditError> {
        self.0.flush().map_err(failed)
    }
}

impl<W: Write + Send> EventSink for CsvEvents<W> {
    fn event(&mut self, event: &StoredEvent) -> Result<(), AuditError> {
        let id = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let record = [
            event.event_id.to_string(),
            event.cursor.clone(),
            event.tenant_id.to_string(),
            id(event.license_id),
            event.version.map(|version| version.to_string()).unwrap_or_default(),
            event.event_type.clone(),
            id(event.session_id),
            text(&event.user_id),
            text(&event.hardware_id),
            event.occurred_at.clone(),
            text(&event.request_id),
            event.data.to_string(),
            event.class.clone(),
            event.index.map(|index| index.to_string()).unwrap_or_default(),
        ];
        self.0.write_record(record).map_err(failed)
    }
}
