//! What happened and how it is remembered.
//!
//! The facts ([`Event`]), what the log adds to each of them ([`Recorded`]), the one door through which they are
//! written ([`EventLog::append`]), and the readers. This crate owns `schema/` and knows no other crate of the
//! workspace.
//!
//! Guarantee: a stream's decisions are versioned 1..n without gap, and a batch is written whole or refused whole.

mod change;
mod codec;
mod cursor;
mod database;
mod envelope;
mod error;
mod event;
mod ids;
mod log;
mod migrate;
mod standing;
mod time;

pub use change::double_option;
pub use codec::{CodecError, decode, encode};
pub use cursor::{Cursor, CursorSeal, Position};
pub use database::{Database, SERVICE_ROLE, connect_as_login};
pub use envelope::{Recorded, Subject};
pub use error::LogError;
pub use event::{
    AddReason, Event, LicenseChange, LicenseTerms, RevokedBy, TenantChange, TenantTerms, UserChange,
};
pub use ids::{
    HardwareId, InvalidValue, LicenseId, MachineName, Product, Seats, SessionId, TenantId, UserId,
};
pub use log::EventLog;
pub use log::append::{Appended, Batch, HeartbeatWrite, IdempotencyKey, NameClaim, NewEvent, StreamWrite};
pub use log::keys::PublishedKey;
pub use log::lookup::{ApplicableLicense, KnownKey, Member, SessionEnd, SessionPlace};
pub use log::read::EventFilter;
pub use log::refused::Refused;
pub use log::replay::{PoolAt, SessionAt};
pub use log::seats::Seat;
pub use log::stream::{Snapshot, StreamHead};
pub use log::terms::LicenseRecord;
pub use log::users::{UserRecord, email_key, invitation_scope};
pub use migrate::{migrate, require_current_schema};
pub use standing::Standing;
pub use time::Time;
