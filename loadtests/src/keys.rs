//! RSA keys: made, written as PEM, read back.

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A new private key.
pub fn generate(size: KeySize) -> Result<KeyPair> {
    KeyPair::generate(size).map_err(|_| anyhow!("the RSA key could not be made"))
}

/// PKCS#8 PEM, as `SIGNING_KEY_FILE` wants it.
pub fn to_pem(key: &KeyPair) -> Result<String> {
    let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| anyhow!("the RSA key could not be encoded"))?;
    let text = STANDARD.encode(der.as_ref());
    let mut pem = format!("{BEGIN}\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(END);
    pem.push('\n');
    Ok(pem)
}

/// Reads a PKCS#8 PEM.
pub fn from_pem(pem: &str) -> Result<KeyPair> {
    let body = pem
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(body, _)| body.split_whitespace().collect::<String>())
        .context("not a PKCS#8 PEM (`BEGIN PRIVATE KEY`)")?;
    let der = STANDARD.decode(body).context("the PEM's base64 is broken")?;
    KeyPair::from_pkcs8(&der).map_err(|e| anyhow!("not an RSA private key: {e}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem() {
        let key = generate(KeySize::Rsa2048).unwrap();
        let pem = to_pem(&key).unwrap();
        assert_eq!(to_pem(&from_pem(&pem).unwrap()).unwrap(), pem);
        assert!(from_pem("-----BEGIN RSA PRIVATE KEY-----").is_err());
    }
}
