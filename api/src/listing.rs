//! Lists in three formats: a page of JSON, or all of it as NDJSON or CSV, as the caller's `Accept` prefers.
//!
//! JSON is what a caller gets that prefers neither. NDJSON and CSV are streamed page by page: memory holds a page,
//! whatever the list's length. A stream that cannot go on is cut, never ended as if it were whole.

use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::stream::{self, try_unfold};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use poem::http::{HeaderValue, header};
use poem::{Body, FromRequest, IntoResponse, Request, RequestBody, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ToJSON, Type};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Streams at a time.
const MAX_STREAMS: usize = 64;

/// Longest life of a stream.
const MAX_STREAM: Duration = Duration::from_secs(1_800);

/// Parts of a list that are read and written before they can be sent.
const PARTS_AHEAD: usize = 2;

/// Rows of a page of a stream.
pub const STREAM_PAGE: usize = 1_000;

static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_STREAMS)));

/// What a row looks like in CSV.
pub trait CsvRow: ToJSON + Type + Send + Sync + 'static {
    /// The columns, in order: fields of its JSON, `a.b` for a field of a field.
    const COLUMNS: &'static [&'static str];
}

/// A part of a list.
pub struct Page<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// How a caller wants a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One page.
    Json,
    /// All of it, a line each.
    Ndjson,
    /// All of it, a header and a line each.
    Csv,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Ndjson, Self::Csv];

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// The format that an `Accept` prefers (RFC 9110, section 12.5.1); JSON if it names none of ours.
    fn preferred(accept: &str) -> Self {
        let mut best = (Self::Json, 0.0);
        for format in Self::ALL {
            let (kind, media) = (format.media_type().split('/').next().unwrap_or(""), format.media_type());
            // The most specific range that fits a type says how welcome it is.
            let mut fits = (0, 0.0);
            for range in accept.split(',') {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().unwrap_or("").to_ascii_lowercase();
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32);
                let specific = match name.as_str() {
                    "*/*" => 1,
                    _ if name.strip_suffix("/*") == Some(kind) => 2,
                    _ if name == media || (format == Self::Ndjson && name == "application/jsonl") => 3,
                    _ => 0,
                };
                if specific > fits.0 {
                    fits = (specific, quality);
                }
            }
            if fits.1 > best.1 {
                best = (format, fits.1);
            }
        }
        best.0
    }
}

impl<'a> FromRequest<'a> for Format {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let accept: Vec<_> = request
            .headers()
            .get_all(header::ACCEPT)
            .into_iter()
            .filter_map(|one| one.to_str().ok())
            .collect();
        Ok(Self::preferred(&accept.join(",")))
    }
}

/// A list as the caller wants it.
pub struct Listing<T> {
    response: Response,
    row: PhantomData<fn() -> T>,
}

impl<T: CsvRow> Listing<T> {
    /// The page after `after`, or all pages from there on. `page` answers the page after a cursor, of so many rows.
    ///
    /// # Errors
    /// Whatever the first page's question is answered with; 503 with too many streams.
    pub async fn of<F, Fut>(
        format: Format,
        after: Option<String>,
        limit: usize,
        page: F,
    ) -> Result<Self, Problem>
    where
        F: Fn(Option<String>, usize) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Page<T>, Problem>> + Send + 'static,
    {
        if format == Format::Json {
            let Page { items, next } = page(after, limit).await?;
            let items: Vec<Value> = items.iter().map(json_of).collect();
            return Ok(Self::answer(format, Body::from(json!({ "items": items, "next": next }).to_string())));
        }
        let permit = permit()?;
        let first = page(after, STREAM_PAGE).await?;
        Ok(Self::answer(format, pages(format, permit, first, page)))
    }

    /// All of a list that is read in parts, in any of the formats. A part is read and written while the one before is
    /// sent; a slow reader keeps two of them waiting, and no connection to the database.
    ///
    /// # Errors
    /// Whatever the first part's question is answered with; 503 with too many streams.
    pub async fn of_parts<P, F, Fut>(
        format: Format,
        parts: impl Iterator<Item = P> + Send + 'static,
        read: F,
    ) -> Result<Self, Problem>
    where
        T: Serialize,
        F: Fn(P) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<T>, Problem>> + Send + 'static,
    {
        let permit = permit()?;
        let begun = Instant::now();
        let written = parts.enumerate().map(move |(n, part)| {
            let rows = read(part);
            tokio::spawn(async move {
                let rows = rows.await?;
                // Work for the processor, which does not belong on the workers that answer.
                let text = tokio::task::spawn_blocking(move || text_of(format, &rows, n == 0));
                text.await.map_err(std::io::Error::other).flatten().map_err(|error| {
                    tracing::error!(%error, "a list was not written");
                    Problem::Internal
                })
            })
            .map(|joined| joined.unwrap_or(Err(Problem::Internal)))
        });
        let mut written = stream::iter(written).buffered(PARTS_AHEAD);
        let first = written.try_next().await?;
        let written = stream::iter(first.map(Ok)).chain(written).map(move |part| {
            let _held = &permit;
            if begun.elapsed() > MAX_STREAM {
                return Err(std::io::Error::other("the stream took too long"));
            }
            part.map_err(|problem| {
                tracing::warn!(%problem, "a stream was cut");
                std::io::Error::other(problem)
            })
        });
        let (head, tail) = match format {
            Format::Json => ("{\"items\":[".to_owned(), "],\"next\":null}"),
            Format::Ndjson => (String::new(), ""),
            Format::Csv => (format!("{}\r\n", T::COLUMNS.join(",")), ""),
        };
        let end = |text: Vec<u8>| stream::iter((!text.is_empty()).then_some(Ok(text)));
        let body = end(head.into()).chain(written).chain(end(tail.into()));
        Ok(Self::answer(format, Body::from_bytes_stream(body)))
    }

    fn answer(format: Format, body: Body) -> Self {
        let mut response = Response::builder().content_type(format.media_type()).body(body);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        Self { response, row: PhantomData }
    }
}

fn permit() -> Result<OwnedSemaphorePermit, Problem> {
    let busy = |_| Problem::Unavailable { why: "Too many lists are being streamed. Try again." };
    STREAMS.clone().try_acquire_owned().map_err(busy)
}

/// All pages from the first on.
fn pages<T, F, Fut>(format: Format, permit: OwnedSemaphorePermit, first: Page<T>, page: F) -> Body
where
    T: CsvRow,
    F: Fn(Option<String>, usize) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Page<T>, Problem>> + Send + 'static,
{
    enum Next<T> {
        Ready(Page<T>),
        After(String),
        Nothing,
    }
    let begun = Instant::now();
    let state = (Next::Ready(first), page, permit, true);
    let chunks = try_unfold(state, move |(next, page, permit, is_first)| async move {
        if begun.elapsed() > MAX_STREAM {
            return Err(std::io::Error::other("the stream took too long"));
        }
        let Page { items, next } = match next {
            Next::Ready(page) => page,
            Next::After(cursor) => page(Some(cursor), STREAM_PAGE).await.map_err(|problem| {
                tracing::warn!(%problem, "a stream was cut");
                std::io::Error::other(problem)
            })?,
            Next::Nothing => return Ok(None),
        };
        let chunk = lines(format, &items, is_first)?;
        let next = next.map_or(Next::Nothing, Next::After);
        Ok(Some((chunk, (next, page, permit, false))))
    });
    Body::from_bytes_stream(chunks)
}

fn json_of<T: ToJSON>(row: &T) -> Value {
    row.to_json().unwrap_or_default()
}

/// Rows as lines; before the first ones the header that the format has.
fn lines<T: CsvRow>(format: Format, rows: &[T], is_first: bool) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(rows.len() * 256);
    if format == Format::Ndjson {
        for row in rows {
            serde_json::to_writer(&mut out, &json_of(row))?;
            out.push(b'\n');
        }
        return Ok(out);
    }
    let mut csv = csv_writer(out);
    if is_first {
        csv.write_record(T::COLUMNS)?;
    }
    for row in rows {
        let row = json_of(row);
        csv.write_record(T::COLUMNS.iter().map(|column| cell(&row, column)))?;
    }
    csv.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
}

/// Rows of a list that is read in parts. It may have half a million: each goes straight into the text.
fn text_of<T: Serialize>(format: Format, rows: &[T], is_first: bool) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(rows.len() * 256);
    match format {
        Format::Json => {
            for (n, row) in rows.iter().enumerate() {
                if n > 0 || !is_first {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, row)?;
            }
        }
        Format::Ndjson => {
            for row in rows {
                serde_json::to_writer(&mut out, row)?;
                out.push(b'\n');
            }
        }
        Format::Csv => {
            let mut csv = csv_writer(&mut out);
            rows.iter().try_for_each(|row| csv.serialize(row))?;
            csv.flush()?;
        }
    }
    Ok(out)
}

/// As RFC 4180 has it; whoever writes rows writes the header.
fn csv_writer<W: std::io::Write>(out: W) -> csv::Writer<W> {
    csv::WriterBuilder::new().has_headers(false).terminator(csv::Terminator::CRLF).from_writer(out)
}

/// A field as CSV has it: nothing for null, words of a list with spaces between, JSON for what is left.
fn cell(row: &Value, column: &str) -> String {
    let value = column.split('.').try_fold(row, |value, part| value.get(part));
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) if words.iter().all(Value::is_string) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

impl<T> IntoResponse for Listing<T> {
    fn into_response(self) -> Response {
        self.response
    }
}

impl<T: CsvRow> ApiResponse for Listing<T> {
    fn meta() -> MetaResponses {
        let text = || MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        let mut next = MetaSchema::new("string");
        next.nullable = true;
        next.description = Some("Where the next page begins: hand it back as `after`; null: that was all");
        let mut items = MetaSchema::new("array");
        items.items = Some(Box::new(T::schema_ref()));
        let mut page = MetaSchema::new("object");
        page.required = vec!["items", "next"];
        page.properties = vec![
            ("items", MetaSchemaRef::Inline(Box::new(items))),
            ("next", MetaSchemaRef::Inline(Box::new(next))),
        ];
        let content = vec![
            MetaMediaType {
                content_type: Format::Json.media_type(),
                schema: MetaSchemaRef::Inline(Box::new(page)),
            },
            MetaMediaType { content_type: Format::Ndjson.media_type(), schema: text() },
            MetaMediaType { content_type: Format::Csv.media_type(), schema: text() },
        ];
        let ok = MetaResponse {
            description: "A page of JSON; or all of it, as `Accept` prefers",
            status: Some(200),
            status_range: None,
            content,
            headers: vec![],
        };
        MetaResponses { responses: vec![ok] }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, cell};
    use serde_json::json;

    #[test]
    fn prefers_what_the_caller_prefers_and_json_otherwise() {
        for (accept, format) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/html", Format::Json),
            ("application/*", Format::Json),
            ("text/csv", Format::Csv),
            ("text/*", Format::Csv),
            ("application/x-ndjson", Format::Ndjson),
            ("application/json;q=0.5, text/csv", Format::Csv),
            ("application/json, text/csv;q=0.9, */*;q=0.1", Format::Json),
            ("text/csv;q=0, */*", Format::Json),
            ("Application/X-NDJSON; q=0.1", Format::Ndjson),
        ] {
            assert_eq!(Format::preferred(accept), format, "{accept}");
        }
    }

    #[test]
    fn cells_are_texts() {
        let row = json!({ "a": null, "b": ["x", "y"], "c": { "d": 7 }, "e": true, "f": "1,2" });
        let cells: Vec<_> = ["a", "b", "c.d", "c", "e", "f", "none"].map(|column| cell(&row, column)).into();
        assert_eq!(cells, ["", "x y", "7", "{\"d\":7}", "true", "1,2", ""]);
    }
}
