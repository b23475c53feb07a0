//! Where the server listens.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// A server's scheme, host and port. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: HeaderValue,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// From `http://host:port` or `https://host`; a path is refused, since the contract fixes the paths.
    pub fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => anyhow::bail!("`{url}` must begin with http:// or https://"),
        };
        ensure!(matches!(uri.path(), "" | "/"), "`{url}` must have no path");
        let authority = uri.authority().with_context(|| format!("`{url}` names no host"))?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())?,
            tls: if https { Some(Arc::new(tls_config()?)) } else { None },
        })
    }

    pub(super) fn tls(&self) -> Result<Option<(TlsConnector, ServerName<'static>)>> {
        let Some(config) = &self.tls else { return Ok(None) };
        let name = ServerName::try_from(self.host.clone())?;
        Ok(Some((TlsConnector::from(config.clone()), name)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority.to_str().unwrap_or(&self.host))
    }
}

fn tls_config() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_once() {
        let plain = Endpoint::parse("http://127.0.0.1:8000/").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 8000));
        assert_eq!(plain.to_string(), "http://127.0.0.1:8000");
        assert_eq!(Endpoint::parse("https://license.example").unwrap().port, 443);
        assert_eq!(Endpoint::parse("http://[::1]:80").unwrap().host, "::1");
        for bad in ["127.0.0.1:8000", "ftp://x", "http://x/api"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
