//! Evidence that the log is what it was.
//!
//! A [`Notary`] seals the log as it grows: one Merkle tree per tenant, signed checkpoints over all of them. From these
//! follow proofs of single events, certificates, and the verification of a whole log, online or from an export. This
//! crate reads the log and owns the tables of `schema/V9__notary.sql`; it knows `events` and `merkle`, no HTTP and no
//! key: whoever joins the parts gives it a [`NotarySigner`].

mod archive;
mod blind;
mod canonical;
mod certificate;
mod checkpoint;
mod erase;
mod error;
mod export;
mod hex;
mod keys;
mod notary;
mod page;
mod personal;
mod read;
mod store;
mod stored;
mod verify;

pub use archive::{Archived, archive};
pub use blind::Path;
pub use canonical::{canonical, canonical_bytes, leaf_of};
pub use certificate::{Certificate, LicenseUse, Limit, SignedCertificate, certificate, verify_certificate};
pub use checkpoint::{Checkpoint, NotarySigner, SigningKey, TenantCheckpoint, TenantHead};
pub use erase::{Erased, erase, forget};
pub use error::AuditError;
pub use export::{CsvEvents, EventSink, Ndjson, ParquetEvents, export_checkpoints, export_events};
pub use hex::Hex;
pub use keys::PublicKeys;
pub use notary::{Notary, Round};
pub use personal::{MissingSalt, Salts};
pub use read::{
    EventProof, archived_proof, checkpoint_keys, event_proof, list_checkpoints, list_tenant_checkpoints,
    tenant_checkpoint,
};
pub use stored::StoredEvent;
pub use verify::{
    Finding, Kept, OfflineOptions, OnlineOptions, Report, Wrong, read_kept, verify_database, verify_export,
};
