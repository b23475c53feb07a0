//! A verified caller, and the credentials before they are.

use std::collections::BTreeSet;
use std::str::FromStr;

use events::UserId;
use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

/// What a caller may do beyond holding seats for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything of its tenant; changes its name, users, sessions.
    TenantAdmin,
    /// Reads events, state, certificates of its tenant.
    Auditor,
    /// Reads usage, denials, sessions of its tenant.
    Analyst,
    /// Everything of every tenant.
    PlatformAdmin,
}

impl FromStr for Role {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tenant_admin" => Ok(Self::TenantAdmin),
            "auditor" => Ok(Self::Auditor),
            "analyst" => Ok(Self::Analyst),
            "platform_admin" => Ok(Self::PlatformAdmin),
            _ => Err(()),
        }
    }
}

/// Whoever a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`.
    pub user_id: UserId,
    /// `email`, if the token has one.
    pub email: Option<String>,
    /// The issuer does not say that it has not verified the email: `email_verified` is not false.
    pub email_verified: bool,
    /// The tenant claim, if it is a text.
    pub tenant_claim: Option<String>,
    /// The roles claim.
    pub roles: BTreeSet<Role>,
}

/// What the request's `Authorization` header carries; judged by the handler, because the token may be in the body.
pub struct Credentials {
    bearer: Option<String>,
    header_present: bool,
}

impl Credentials {
    /// The token: the header wins over the body. A header of another scheme is no token.
    #[must_use]
    pub fn token<'a>(&'a self, in_body: Option<&'a str>) -> Option<&'a str> {
        if self.header_present { self.bearer.as_deref() } else { in_body }
    }
}

impl<'a> ApiExtractor<'a> for Credentials {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            "bearer",
            MetaSecurityScheme {
                ty: "http",
                description: Some("A JWT of the configured issuer"),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["bearer"]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let header = request.headers().get(header::AUTHORIZATION);
        let bearer = header.and_then(|value| value.to_str().ok()).and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        Ok(Self { bearer, header_present: header.is_some() })
    }
}
