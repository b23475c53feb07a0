//! `export --what usage`: the rows of `GET …/usage`, of any range, so many at a time.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use events::{EventLog, LicenseId, TenantId, Time};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use projections::{Bucket, ReadModels, UsageItem, UsageRange};
use serde::Serialize;

use super::Format;

/// How long what was committed before is waited for; a runner that stands still is an error then.
const PATIENCE: Duration = Duration::from_secs(10);

/// The columns: those of `GET …/usage`.
const SCHEMA: &str = "message usage {
  required int64 from (TIMESTAMP(MILLIS,true));
  required int64 to (TIMESTAMP(MILLIS,true));
  optional binary license_id (UTF8);
  required int64 seats_total;
  required int64 peak;
  required double average;
  required int64 acquired;
  required int64 denied;
  required int64 released;
  required int64 expired;
  required int64 revoked;
  required int64 unique_users;
}";

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Interval {
    Minute,
    Hour,
    Day,
}

impl From<Interval> for Bucket {
    fn from(interval: Interval) -> Self {
        match interval {
            Interval::Minute => Self::Minute,
            Interval::Hour => Self::Hour,
            Interval::Day => Self::Day,
        }
    }
}

/// Whose usage, and when.
pub(super) struct Question {
    models: ReadModels,
    tenant_id: TenantId,
    range: UsageRange,
}

impl Question {
    /// Looks whether there is an answer, before anything is written.
    pub(super) async fn new(
        log: &EventLog,
        tenant_id: TenantId,
        license_id: Option<LicenseId>,
        bucket: Bucket,
        (from, until): (Time, Option<Time>),
    ) -> anyhow::Result<Self> {
        ensure!(log.tenant_of(tenant_id.0).await? == Some(tenant_id), "--tenant: there is no such tenant");
        if let Some(license_id) = license_id {
            let own = log.license(license_id).await?.is_some_and(|license| license.tenant_id == tenant_id);
            ensure!(own, "--license: the tenant has no such license");
        }
        let to = match until {
            Some(until) => until,
            None => log.clock().await?,
        };
        ensure!(from <= to, "--from: it is after --until");
        let models = ReadModels::new(log.clone());
        ensure!(
            models.caught_up(PATIENCE).await?,
            "the read models are behind the log: is `serve` or `project` running?"
        );
        Ok(Self { models, tenant_id, range: UsageRange { bucket, from, to, license_id } })
    }

    /// Writes all of it; answers how many buckets there were.
    pub(super) async fn write(&self, format: Format, output: &mut (dyn Write + Send)) -> anyhow::Result<u64> {
        let mut sink = Sink::new(format, output)?;
        let mut count = 0;
        for part in self.range.parts() {
            let usage = self.models.usage(self.tenant_id, &part).await?;
            let items: Vec<_> = usage.items().collect();
            sink.write(&items)?;
            count += items.len() as u64;
        }
        sink.finish()?;
        Ok(count)
    }
}

/// A row as CSV and NDJSON have it.
#[derive(Serialize)]
struct Row {
    from: Time,
    to: Time,
    license_id: Option<LicenseId>,
    seats_total: i64,
    peak: i64,
    average: f64,
    acquired: i64,
    denied: i64,
    released: i64,
    expired: i64,
    revoked: i64,
    unique_users: i64,
}

impl From<&UsageItem> for Row {
    fn from(item: &UsageItem) -> Self {
        Self {
            from: item.from,
            to: item.to,
            license_id: item.license_id,
            seats_total: item.seats_total,
            peak: item.peak,
            average: item.average,
            acquired: item.acquired,
            denied: item.denied,
            released: item.released,
            expired: item.expired,
            revoked: item.revoked,
            unique_users: item.unique_users,
        }
    }
}

type Output<'a> = &'a mut (dyn Write + Send);

enum Sink<'a> {
    Ndjson(Output<'a>),
    Csv(Box<csv::Writer<Output<'a>>>),
    Parquet(Box<SerializedFileWriter<Output<'a>>>),
}

impl<'a> Sink<'a> {
    fn new(format: Format, output: Output<'a>) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson(output),
            Format::Csv => {
                let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(output);
                let schema = parse_message_type(SCHEMA)?;
                csv.write_record(schema.get_fields().iter().map(|column| column.name()))?;
                Self::Csv(Box::new(csv))
            }
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                let schema = Arc::new(parse_message_type(SCHEMA)?);
                Self::Parquet(Box::new(SerializedFileWriter::new(output, schema, Arc::new(properties))?))
            }
        })
    }

    fn write(&mut self, items: &[UsageItem]) -> anyhow::Result<()> {
        match self {
            Self::Ndjson(output) => {
                for item in items {
                    serde_json::to_writer(&mut *output, &Row::from(item))?;
                    output.write_all(b"\n")?;
                }
            }
            Self::Csv(csv) => {
                for item in items {
                    csv.serialize(Row::from(item))?;
                }
            }
            Self::Parquet(file) => {
                let mut group = file.next_row_group()?;
                columns(&mut group, items)?;
                group.close()?;
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Ndjson(_) => {}
            Self::Csv(mut csv) => csv.flush()?,
            Self::Parquet(file) => drop(file.into_inner()?),
        }
        Ok(())
    }
}

/// The columns of one row group, in the order of the schema.
fn columns<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    items: &[UsageItem],
) -> anyhow::Result<()> {
    numbers(group, items, |item| item.from.millis())?;
    numbers(group, items, |item| item.to.millis())?;
    let ids = items.iter().filter_map(|item| item.license_id);
    let ids: Vec<ByteArray> = ids.map(|id| id.to_string().as_str().into()).collect();
    let levels: Vec<i16> = items.iter().map(|item| i16::from(item.license_id.is_some())).collect();
    let mut column = group.next_column()?.context("no column left")?;
    column.typed::<ByteArrayType>().write_batch(&ids, Some(&levels), None)?;
    column.close()?;
    numbers(group, items, |item| item.seats_total)?;
    numbers(group, items, |item| item.peak)?;
    let averages: Vec<f64> = items.iter().map(|item| item.average).collect();
    let mut column = group.next_column()?.context("no column left")?;
    column.typed::<DoubleType>().write_batch(&averages, None, None)?;
    column.close()?;
    numbers(group, items, |item| item.acquired)?;
    numbers(group, items, |item| item.denied)?;
    numbers(group, items, |item| item.released)?;
    numbers(group, items, |item| item.expired)?;
    numbers(group, items, |item| item.revoked)?;
    numbers(group, items, |item| item.unique_users)
}

fn numbers<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    items: &[UsageItem],
    of: impl Fn(&UsageItem) -> i64,
) -> anyhow::Result<()> {
    let values: Vec<i64> = items.iter().map(of).collect();
    let mut column = group.next_column()?.context("no column left")?;
    column.typed::<Int64Type>().write_batch(&values, None, None)?;
    Ok(column.close()?)
}
