//! Whether a certificate follows from an exported log. No server is asked.

use std::collections::VecDeque;
use std::path::Path;

use events::Time;
use merkle::{Digest, Frontier};
use uuid::Uuid;

use super::fold::Fold;
use super::{LicenseUse, SignedCertificate};
use crate::canonical::leaf_of;
use crate::keys::PublicKeys;
use crate::personal::Salts;
use crate::stored::StoredEvent;
use crate::verify::{EventLines, LeafLines};
use crate::{AuditError, Hex};

/// What does not hold about a certificate; empty: it is proved by the export.
///
/// The export must begin with the first event, and reach at least to the size that the certificate names. With archived
/// heartbeats missing from it, `index` (a file of checkpoints) gives the leaves of what was archived.
///
/// # Errors
/// When a file cannot be read.
pub fn verify_certificate(
    certificate: &Path,
    export: &Path,
    index: Option<&Path>,
    keys: Option<&PublicKeys>,
) -> Result<Vec<String>, AuditError> {
    let text = std::fs::read_to_string(certificate).map_err(AuditError::file(certificate))?;
    let signed: SignedCertificate = serde_json::from_str(&text)
        .map_err(|error| AuditError::unreadable(format!("{}: {error}", certificate.display())))?;
    let own;
    let keys = match keys {
        Some(keys) => keys,
        None => {
            own = PublicKeys::parse(&signed.public_key)?;
            &own
        }
    };
    let stated = &signed.certificate;
    let mut wrong = Vec::new();
    if !keys.verify(&signed.kid, &stated.message()?, &signed.signature) {
        wrong.push("the certificate's signature does not verify".to_owned());
    }
    if !stated.log.hangs_together()? || stated.log.head.tenant_id != stated.tenant_id {
        wrong.push(
            "the tenant's head is not below the public checkpoint that the certificate names".to_owned(),
        );
    }
    if !stated.log.checkpoint.is_signed_by(keys)? {
        wrong.push("the signature of the checkpoint that the certificate names does not verify".to_owned());
    }
    let time = |text: &str| Time::parse(text).map_err(AuditError::unreadable);
    let range = (time(&stated.from)?, time(&stated.to)?);
    let (tree, licenses) = fold_export(export, index, range, stated.log.head.size)?;
    if tree.size() < stated.log.head.size {
        wrong.push(format!(
            "the export has {} sealed events, the certificate follows from {}",
            tree.size(),
            stated.log.head.size
        ));
    } else if Hex(tree.root()) != stated.log.head.root {
        wrong.push(
            "the events of the export are not those that were sealed (verify --export names the first)"
                .to_owned(),
        );
    }
    if licenses != stated.licenses {
        wrong.push(format!(
            "the events show {}, the certificate states {}",
            serde_json::json!(licenses),
            serde_json::json!(stated.licenses)
        ));
    }
    Ok(wrong)
}

/// The tree over the first `size` events of an export, and what all of its events show.
fn fold_export(
    export: &Path,
    index: Option<&Path>,
    (from, to): (Time, Time),
    size: u64,
) -> Result<(Frontier, Vec<LicenseUse>), AuditError> {
    let mut lines = EventLines::open(export)?;
    let mut leaves = index.map(LeafLines::open).transpose()?;
    let mut ahead = VecDeque::new();
    let (mut tree, mut fold) = (Frontier::default(), Fold::new(from, to));
    let hash = |event: StoredEvent| {
        let leaf = leaf_of(&event, &Salts::of(&event)?).map_err(AuditError::unreadable)?;
        Ok((event, leaf))
    };
    while let Some(page) = lines.next_events(hash)? {
        for (event, leaf) in page {
            // What was archived is not among the events: its leaves are in the index, and the root vouches for them.
            while event.index.is_some_and(|index| tree.size() < index.min(size)) {
                let Some(archived) = next_leaf(&mut leaves, &mut ahead)? else { break };
                tree.push(archived);
            }
            if tree.size() < size {
                next_leaf(&mut leaves, &mut ahead)?;
                tree.push(leaf);
            }
            fold.apply(&event);
        }
    }
    while tree.size() < size {
        let Some(archived) = next_leaf(&mut leaves, &mut ahead)? else { break };
        tree.push(archived);
    }
    Ok((tree, fold.finish()))
}

fn next_leaf(
    leaves: &mut Option<LeafLines>,
    ahead: &mut VecDeque<(Uuid, Digest)>,
) -> Result<Option<Digest>, AuditError> {
    let Some(leaves) = leaves else { return Ok(None) };
    if ahead.is_empty() {
        ahead.extend(leaves.next()?.unwrap_or_default());
    }
    Ok(ahead.pop_front().map(|(_, hash)| hash))
}
