//! What the routes have in common: names of versions, bounds of texts and pages, answers of changes.

use actors::AdminRefusal;
use events::{LicenseId, TenantId, Time};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaParamIn, MetaSchemaRef, Registry};
use poem_openapi::types::{ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::{Deserialize, Deserializer};

use crate::app::App;
use crate::problem::Problem;

/// A resource that was made: 201.
#[derive(poem_openapi::ApiResponse)]
pub enum Created<T: ToJSON> {
    /// Made
    #[oai(status = 201)]
    Made(Json<T>, #[oai(header = "ETag")] String),
}

pub(super) fn created<T: ToJSON>(body: T, etag: &str) -> Created<T> {
    Created::Made(Json(body), etag.to_owned())
}

/// A resource that has versions: 200.
#[derive(poem_openapi::ApiResponse)]
pub enum Versioned<T: ToJSON> {
    /// As it is now
    #[oai(status = 200)]
    Shown(Json<T>, #[oai(header = "ETag")] String),
}

pub(super) fn versioned<T: ToJSON>(body: T, etag: &str) -> Versioned<T> {
    Versioned::Shown(Json(body), etag.to_owned())
}

/// A resource that is gone: 204, however often it is asked.
#[derive(poem_openapi::ApiResponse)]
pub enum Deleted {
    /// Gone
    #[oai(status = 204)]
    Gone,
}

/// The ETag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// What `If-Match` demands.
pub struct IfMatch(Option<String>);

impl<'a> ApiExtractor<'a> for IfMatch {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = String;
    type ParamRawType = String;

    fn register(registry: &mut Registry) {
        <String as Type>::register(registry);
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(String::schema_ref())
    }

    /// All such headers as one list; one that is no text is a tag that never matches, rather than none.
    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<String>,
    ) -> poem::Result<Self> {
        let tags = request.headers().get_all(header::IF_MATCH).into_iter();
        let tags: Vec<_> = tags.map(|tag| tag.to_str().unwrap_or("").to_owned()).collect();
        Ok(Self((!tags.is_empty()).then(|| tags.join(","))))
    }
}

impl IfMatch {
    /// Whether a resource of this ETag may be changed. A list matches if one of it does (RFC 9110, section 13.1.1).
    pub fn allows(&self, etag: &str) -> bool {
        match self.0.as_deref().map(str::trim) {
            None | Some("*") => true,
            Some(list) => list.split(',').any(|tag| tag.trim() == etag),
        }
    }

    /// The version that a change is based on, given the one there is: `None`: any.
    pub fn version(&self, current: i64) -> Option<i64> {
        match self.0.as_deref().map(str::trim) {
            None | Some("*") => None,
            Some(_) if self.allows(&etag(current)) => Some(current),
            Some(_) => Some(NO_VERSION),
        }
    }
}

/// A version that nothing ever has.
const NO_VERSION: i64 = -1;

/// `limit` of a list.
pub(super) fn page_limit(limit: Option<&str>) -> Result<usize, Problem> {
    match limit.map(str::parse::<usize>) {
        None => Ok(100),
        Some(Ok(limit @ 1..=1000)) => Ok(limit),
        Some(_) => Err(Problem::field("limit", "must be 1 to 1000")),
    }
}

/// A time in a query.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<Time>, Problem> {
    // A `+` of an offset that was not escaped arrives as a space.
    let parse = |text: &str| Time::parse(text).or_else(|_| Time::parse(&text.replace(' ', "+")));
    text.map(|text| parse(text).map_err(Problem::value(name))).transpose()
}

/// `[from, to)` of a query.
pub(super) fn range(from: Option<&str>, to: Option<&str>) -> Result<(Option<Time>, Option<Time>), Problem> {
    let (from, to) = (time("from", from)?, time("to", to)?);
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(Problem::field("from", "must not be after to")),
        range => Ok(range),
    }
}

/// The tenant's own license that a query names; anybody else's is none.
pub(super) async fn own_license(
    app: &App,
    tenant_id: TenantId,
    license_id: Option<String>,
) -> Result<Option<LicenseId>, Problem> {
    let Some(license_id) = license_id else { return Ok(None) };
    let license_id: LicenseId = license_id.parse().map_err(Problem::value("license_id"))?;
    match app.log().license(license_id).await? {
        Some(license) if license.tenant_id == tenant_id => Ok(Some(license_id)),
        _ => Err(Problem::LicenseNotFound),
    }
}

/// A text of 1 to `most` characters that a terminal shows as it is.
pub(super) fn text(field: &str, value: String, most: usize) -> Result<String, Problem> {
    let length = value.chars().count();
    if (1..=most).contains(&length) && !value.chars().any(char::is_control) {
        Ok(value)
    } else {
        Err(Problem::field(field, format!("must be 1 to {most} characters without control characters")))
    }
}

/// For `#[serde(default, deserialize_with)]`: a field that may be left out, but not be null.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What an administrative act that brings nothing about is answered with.
pub(super) fn refused(refusal: &AdminRefusal) -> Problem {
    let conflict = |why: String| Problem::Conflict { why };
    match refusal {
        AdminRefusal::NameTaken { scope, name } if scope.starts_with("product/") => {
            conflict(format!("The tenant has an active license of product {name} already."))
        }
        AdminRefusal::NameTaken { scope, name } if scope.starts_with("invitation/") => {
            conflict(format!("The tenant has a user with the email {name} already."))
        }
        AdminRefusal::NameTaken { scope, name } => conflict(format!("The {scope} {name} is taken.")),
        AdminRefusal::UserExists => conflict("The tenant has this user already.".to_owned()),
        AdminRefusal::NoSuchTenant => Problem::TenantNotFound,
        AdminRefusal::NoSuchUser => Problem::UserNotFound,
        AdminRefusal::Stale => Problem::PreconditionFailed,
    }
}
