//! What can be done to a server from outside.

/// A signal to a whole server: its main process and everything that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Freezes every process, as a machine does that hangs: connections stay open and nobody answers.
    Stop,
    /// Undoes [`Signal::Stop`].
    Continue,
    /// Ends every process at once, as a power cut does. Returns when they are gone.
    Kill,
    /// `SIGINT` to the main process, which tells its children: Postgres ends fast (sessions are cut), Redis ends.
    Interrupt,
    /// `SIGTERM` to the main process, which tells its children: Postgres waits for its sessions to leave, Redis ends.
    Terminate,
}
