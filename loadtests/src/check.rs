//! The checker: plays many clients against a running service, keeps a history of what they were told, and
//! holds that history against the protocol's promises.
//!
//! It shares no code with the service: it reads the log, the seats table and Redis with SQL and commands of
//! its own and folds the log by itself, so that a mistake in the service cannot be repeated here.
//!
//! ```no_run
//! # async fn f(site: loadtests::check::Site) -> anyhow::Result<()> {
//! use loadtests::check::{FaultKind, Play, Workload, examine};
//! let play = Play::start(&site, &Workload::seeded(7)).await?;
//! let fault = play.begin_fault("replica killed", FaultKind::default());
//! // … break something, repair it …
//! fault.healed("exit status 9, new process 4711 is ready");
//! let history = play.finish().await;
//! examine(&history, &site).await?.assert_ok();
//! # Ok(()) }
//! ```

mod admin;
mod client;
mod command;
mod evidence;
mod examine;
mod fold;
mod history;
mod judge;
mod log;
mod mirror;
mod notice;
mod plan;
mod play;
mod recorder;
mod report;
mod shown;
mod site;
mod wire;
mod workload;

pub use command::{CheckOptions, CheckedSystem, check};
pub use examine::examine;
pub use history::{Act, Call, Fault, FaultKind, History, Moment, Noticed, Origin, Outcome};
pub use play::{FaultHandle, Play, play};
pub use report::{Invariant, Report, Verdict, Violation};
pub use site::{Grantee, Pool, Site, SiteOptions, Stores, Tenant, Tokens};
pub use workload::{Expect, Mix, Patience, Workload};
