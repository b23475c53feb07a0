//! Bodies: JSON, at most 64 KiB, checked after the caller (the contract's order: 401, 404, 403, then the body).

use std::marker::PhantomData;

use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// Largest body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A JSON body that has been read, but not judged: `T` is what it should be.
pub struct Body<T> {
    read: std::result::Result<Map<String, Value>, Problem>,
    shape: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Body<T> {
    /// A text field, before the body is judged; `None` if there is no such text.
    #[must_use]
    pub fn peek(&self, field: &str) -> Option<&str> {
        self.read.as_ref().ok()?.get(field)?.as_str()
    }

    /// A field as it was sent, before the body is judged.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<&Value> {
        self.read.as_ref().ok()?.get(field)
    }

    /// The body as it should be.
    ///
    /// # Errors
    /// A problem that names the first field that is missing or has the wrong type.
    pub fn parse(&self) -> std::result::Result<T, Problem> {
        let fields = self.read.as_ref().map_err(Clone::clone)?;
        serde_path_to_error::deserialize(fields).map_err(|error| {
            let path = error.path().to_string();
            let why = error.into_inner().to_string();
            let field = match why.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
                Some(missing) => missing.to_owned(),
                // `features[0]` is a matter of the field `features`.
                None => path.split(&['[', '.']).next().unwrap_or_default().to_owned(),
            };
            let why = why.split(" at line").next().unwrap_or_default().to_owned();
            Problem::InvalidRequest { why: format!("{field}: {why}"), field: Some(field) }
        })
    }

    /// The fields, one of them left out: what makes two requests the same.
    #[must_use]
    pub fn fields_without(&self, left_out: &str) -> std::collections::BTreeMap<&str, &Value> {
        let fields = self.read.iter().flatten();
        fields.filter(|(name, _)| *name != left_out).map(|(name, value)| (name.as_str(), value)).collect()
    }
}

async fn read(request: &Request, body: &mut RequestBody) -> std::result::Result<Map<String, Value>, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or(""));
    if let Some(content_type) = content_type.filter(|value| !value.is_empty()) {
        let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if essence != "application/json"
            && !(essence.starts_with("application/") && essence.ends_with("+json"))
        {
            return Err(Problem::UnsupportedMediaType);
        }
    }
    let invalid = |why: &str| Problem::InvalidRequest { field: None, why: why.to_owned() };
    let bytes = body
        .take()
        .map_err(|_| invalid("the body cannot be read"))?
        .into_bytes_limit(MAX_BODY)
        .await
        .map_err(|error| match error {
            poem::error::ReadBodyError::PayloadTooLarge => Problem::BodyTooLarge,
            _ => invalid("the body cannot be read"),
        })?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("the body must be a JSON object")),
        Err(_) => Err(invalid("the body is not JSON, or has a number or a depth that is out of bounds")),
    }
}

impl<'a, T: DeserializeOwned + Type> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = MetaMediaType { content_type: "application/json", schema: T::schema_ref() };
        Some(MetaRequest { description: None, content: vec![content], required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        Ok(Self { read: read(request, body).await, shape: PhantomData })
    }
}
