//! Events in Parquet: one row group at a time is in memory.

use std::io::Write;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::{Row, RowAccessor};
use parquet::schema::parser::parse_message_type;
use uuid::Uuid;

use crate::AuditError;
use crate::export::EventSink;
use crate::stored::{StoredEvent, time};

/// Events of a row group.
const GROUP: usize = 20_000;

/// Which column has the tenant.
const TENANT: usize = 2;

/// The columns: those of a line of NDJSON, `data` and `salts` as JSON.
const SCHEMA: &str = "message event {
  required binary event_id (UTF8);
  required binary cursor (UTF8);
  required binary tenant_id (UTF8);
  optional binary license_id (UTF8);
  optional int64 version;
  required binary class (UTF8);
  required binary type (UTF8);
  required int32 format;
  optional binary session_id (UTF8);
  optional binary user_id (UTF8);
  optional binary hardware_id (UTF8);
  required int64 occurred_at (TIMESTAMP(MICROS,true));
  optional binary request_id (UTF8);
  required binary data (UTF8);
  optional int64 index;
  required binary salts (UTF8);
}";

/// Writes events as Parquet; [`ParquetEvents::finish`] ends the file.
pub struct ParquetEvents<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group: Vec<StoredEvent>,
}

fn failed(error: ParquetError) -> AuditError {
    AuditError::unreadable(format!("Parquet: {error}"))
}

impl<W: Write + Send> ParquetEvents<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When the output fails.
    pub fn new(output: W) -> Result<Self, AuditError> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties)).map_err(failed)?;
        Ok(Self { file, group: Vec::with_capacity(GROUP) })
    }

    /// Writes what is left and ends the file.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> Result<W, AuditError> {
        self.write_group()?;
        self.file.into_inner().map_err(failed)
    }

    fn write_group(&mut self) -> Result<(), AuditError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.group);
        let mut columns = Columns { group: self.file.next_row_group().map_err(failed)?, events: &events };
        columns.text(|event| Some(event.event_id.to_string()))?;
        columns.text(|event| Some(event.cursor.clone()))?;
        columns.text(|event| Some(event.tenant_id.to_string()))?;
        columns.text(|event| event.license_id.map(|id| id.to_string()))?;
        columns.number(|event| event.version)?;
        columns.text(|event| Some(event.class.clone()))?;
        columns.text(|event| Some(event.event_type.clone()))?;
        columns.format()?;
        columns.text(|event| event.session_id.map(|id| id.to_string()))?;
        columns.text(|event| event.user_id.clone())?;
        columns.text(|event| event.hardware_id.clone())?;
        columns.number(|event| micros(&event.occurred_at))?;
        columns.text(|event| event.request_id.clone())?;
        columns.text(|event| Some(event.data.to_string()))?;
        columns.number(|event| event.index.and_then(|index| i64::try_from(index).ok()))?;
        columns.text(|event| serde_json::to_string(&event.salts).ok())?;
        columns.group.close().map_err(failed)?;
        Ok(())
    }
}

impl<W: Write + Send> EventSink for ParquetEvents<W> {
    fn event(&mut self, event: &StoredEvent) -> Result<(), AuditError> {
        self.group.push(event.clone());
        if self.group.len() < GROUP { Ok(()) } else { self.write_group() }
    }
}

fn micros(at: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(at).ok().map(|at| at.timestamp_micros())
}

/// The columns of one row group, in the order of the schema.
struct Columns<'a, W: Write + Send> {
    group: SerializedRowGroupWriter<'a, W>,
    events: &'a [StoredEvent],
}

impl<W: Write + Send> Columns<'_, W> {
    fn text(&mut self, of: impl Fn(&StoredEvent) -> Option<String>) -> Result<(), AuditError> {
        let all: Vec<Option<String>> = self.events.iter().map(of).collect();
        let levels: Vec<i16> = all.iter().map(|one| i16::from(one.is_some())).collect();
        let values: Vec<ByteArray> = all.iter().flatten().map(|one| one.as_str().into()).collect();
        let mut column = self.group.next_column().map_err(failed)?.ok_or_else(no_column)?;
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).map_err(failed)?;
        column.close().map_err(failed)
    }

    fn number(&mut self, of: impl Fn(&StoredEvent) -> Option<i64>) -> Result<(), AuditError> {
        let all: Vec<Option<i64>> = self.events.iter().map(of).collect();
        let levels: Vec<i16> = all.iter().map(|one| i16::from(one.is_some())).collect();
        let values: Vec<i64> = all.iter().flatten().copied().collect();
        let mut column = self.group.next_column().map_err(failed)?.ok_or_else(no_column)?;
        column.typed::<Int64Type>().write_batch(&values, Some(&levels), None).map_err(failed)?;
        column.close().map_err(failed)
    }

    fn format(&mut self) -> Result<(), AuditError> {
        let values: Vec<i32> = self.events.iter().map(|event| event.format.into()).collect();
        let mut column = self.group.next_column().map_err(failed)?.ok_or_else(no_column)?;
        column.typed::<Int32Type>().write_batch(&values, None, None).map_err(failed)?;
        column.close().map_err(failed)
    }
}

fn no_column() -> AuditError {
    AuditError::unreadable("Parquet: no column left")
}

/// The events of a Parquet file, one after the other.
///
/// # Errors
/// When it is not a file of events.
pub(crate) fn read_parquet<R: ChunkReader + 'static>(
    file: R,
    mut each: impl FnMut(StoredEvent) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    for row in reader.get_row_iter(None).map_err(failed)? {
        each(event_of(&row.map_err(failed)?)?)?;
    }
    Ok(())
}

/// The events of one tenant: row groups that cannot have any are skipped.
///
/// # Errors
/// When it is not a file of events.
pub(crate) fn read_parquet_of<R: ChunkReader + 'static>(
    file: R,
    tenant_id: Uuid,
    mut each: impl FnMut(StoredEvent) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let name = tenant_id.to_string();
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(failed)?;
        let bounds = group.metadata().column(TENANT).statistics();
        let outside = bounds.is_some_and(|bounds| {
            let (least, most) = (bounds.min_bytes_opt(), bounds.max_bytes_opt());
            least.is_some_and(|least| least > name.as_bytes())
                || most.is_some_and(|most| most < name.as_bytes())
        });
        if outside {
            continue;
        }
        for row in group.get_row_iter(None).map_err(failed)? {
            let event = event_of(&row.map_err(failed)?)?;
            if event.tenant_id == tenant_id {
                each(event)?;
            }
        }
    }
    Ok(())
}

fn event_of(row: &Row) -> Result<StoredEvent, AuditError> {
    let text = |n: usize| row.get_string(n).cloned().ok();
    let required = |n: usize| row.get_string(n).map_err(failed);
    let id = |n: usize| text(n).map(|id| id.parse()).transpose().map_err(AuditError::unreadable);
    let at: DateTime<Utc> = DateTime::from_timestamp_micros(row.get_timestamp_micros(11).map_err(failed)?)
        .ok_or_else(|| AuditError::unreadable("Parquet: a time that is none"))?;
    Ok(StoredEvent {
        event_id: required(0)?.parse().map_err(AuditError::unreadable)?,
        cursor: required(1)?.clone(),
        tenant_id: required(2)?.parse().map_err(AuditError::unreadable)?,
        license_id: id(3)?,
        version: row.get_long(4).ok(),
        class: required(5)?.clone(),
        event_type: required(6)?.clone(),
        format: i16::try_from(row.get_int(7).map_err(failed)?).map_err(AuditError::unreadable)?,
        session_id: id(8)?,
        user_id: text(9),
        hardware_id: text(10),
        occurred_at: time(at),
        request_id: text(12),
        data: serde_json::from_str(required(13)?).map_err(AuditError::unreadable)?,
        index: row.get_long(14).ok().and_then(|index| u64::try_from(index).ok()),
        salts: serde_json::from_str(required(15)?).map_err(AuditError::unreadable)?,
    })
}
