//! How people ask, and where the parts are joined.
//!
//! The HTTP edge of CODITECT License Management: [`app::build`] joins the log, the actors, the projections and the
//! signer; [`app::App::serve`] answers. `main.rs` holds the subcommands of the only binary, `coditect-license`.

pub mod analysis;
pub mod app;
pub mod auth;
mod body;
pub mod config;
mod cors;
pub mod dev;
mod edge;
pub mod evidence;
pub mod keys;
mod limits;
mod listing;
mod openapi;
mod problem;
pub mod project;
pub mod replay;
mod routes;
pub mod signing;
pub mod telemetry;
mod valve;
pub mod verify_token;

pub use problem::Problem;
