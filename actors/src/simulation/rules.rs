//! The rules of the protocol that can be switched off, to see that each is needed.

/// Which rules are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An append is refused unless its pool is at the version decided on (rule 2).
    pub compare_and_set: bool,
    /// A denial is refused like that too: a stale replica may not say "full" for ever (rule 2).
    pub check_denials: bool,
    /// An append names the standing it was decided on (rule 5).
    pub check_standing: bool,
    /// An expiry needs a deadline that has passed by the log's clock (rule 5).
    pub check_lapsed: bool,
    /// A session whose expiry was refused gets its true deadline in the replica's state (rule 2).
    pub learn_deadlines: bool,
    /// An expiry needs a recent beacon (rule 7).
    pub check_beacon: bool,
    /// After an outage a session has a whole TTL (rule 7).
    pub wait_after_outage: bool,
    /// A holder is answered with its session only when a heartbeat of it was written (rule 8).
    pub renew_by_heartbeat: bool,
    /// A grant's key is recorded with it (rule 8).
    pub record_keys: bool,
    /// A release of a session that the replica does not know sends it to the log first (rule 8).
    pub catch_up_for_release: bool,
    /// A replica that is told of an overdue seat and knows of none goes to the log (the steps, expire).
    pub catch_up_for_expiry: bool,
    /// A gate that says "full" against the state is compared with the log and repaired (the steps, acquire).
    pub doubt_the_gate: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Self = Self {
        compare_and_set: true,
        check_denials: true,
        check_standing: true,
        check_lapsed: true,
        learn_deadlines: true,
        check_beacon: true,
        wait_after_outage: true,
        renew_by_heartbeat: true,
        record_keys: true,
        catch_up_for_release: true,
        catch_up_for_expiry: true,
        doubt_the_gate: true,
    };

    /// The protocol without one of its rules, for each.
    pub fn each_broken() -> Vec<(&'static str, Self)> {
        vec![
            ("compare-and-set", Self { compare_and_set: false, ..Self::ALL }),
            ("the version of denials", Self { check_denials: false, ..Self::ALL }),
            ("the standing of grants", Self { check_standing: false, ..Self::ALL }),
            ("the log's clock for expiries", Self { check_lapsed: false, ..Self::ALL }),
            ("true deadlines after a refusal", Self { learn_deadlines: false, ..Self::ALL }),
            ("the beacon for expiries", Self { check_beacon: false, ..Self::ALL }),
            ("a TTL after an outage", Self { wait_after_outage: false, ..Self::ALL }),
            ("a heartbeat for each renewal", Self { renew_by_heartbeat: false, ..Self::ALL }),
            ("keys recorded with grants", Self { record_keys: false, ..Self::ALL }),
            ("catching up for a release", Self { catch_up_for_release: false, ..Self::ALL }),
            ("catching up for an expiry", Self { catch_up_for_expiry: false, ..Self::ALL }),
            ("doubt of the gate", Self { doubt_the_gate: false, ..Self::ALL }),
        ]
    }
}
