//! One schedule: a seed decides which of all possible steps comes next.

mod faults;
mod heal;
mod hear;
mod time;

use std::collections::HashMap;
use std::sync::Arc;

use events::{
    HardwareId, IdempotencyKey, LicenseChange, LicenseId, LicenseTerms, Product, Seats, SessionId, Time,
    UserId,
};
use uuid::Uuid;

use super::check;
use super::client::{Client, Kind, Waiting};
use super::gate::Gate;
use super::referee::Referee;
use super::replica::{Ask, Replica, Reply, Surroundings, What};
use super::rules::Rules;
use super::tally::Tally;
use crate::pool::command::Command;
use crate::writer::Job;

/// How long a session lives, and how long a silence of the beacon is an outage; milliseconds.
pub const TTL: i64 = 1_000;
pub const GAP: i64 = 300;

/// Steps of a schedule before everything heals.
const STEPS: u32 = 160;

/// A time of the log, from milliseconds of the schedule.
pub fn at(millis: i64) -> Time {
    const BEGIN: i64 = 1_790_000_000_000;
    Time::from_millis(BEGIN + millis).unwrap_or_else(|| unreachable!("a schedule lasts some minutes"))
}

/// An append on its way to the log.
#[derive(Clone)]
struct Flight {
    replica: usize,
    life: u64,
    job: Arc<Job>,
    /// A copy whose sender waits for another one, or for none.
    ghost: bool,
}

/// Everything there is.
pub struct World {
    rng: fastrand::Rng,
    now: i64,
    log: Referee,
    log_away: bool,
    away_since: i64,
    gate: Gate,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    flights: Vec<Flight>,
    replies: Vec<Reply>,
    /// With which key a session was asked for.
    keys: HashMap<SessionId, String>,
    /// Requests that were sent and may arrive again at any time.
    sent: Vec<Ask>,
    /// Sessions that somebody meant to end: an admin, or the holder itself, whose release may arrive after its next acquire.
    given_up: Vec<SessionId>,
    /// Clients keep their sessions alive whatever it takes: then no fault may end one.
    steadfast: bool,
    next_id: u64,
    tally: Tally,
}

impl World {
    /// Runs the schedule of a seed to its end.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn run(seed: u64, rules: Rules) -> Result<Tally, String> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let terms = LicenseTerms {
            product: Product::new("coditect").map_err(|error| error.to_string())?,
            plan: "team".to_owned(),
            seats_total: Seats::new(rng.i64(1..4)).map_err(|error| error.to_string())?,
            active: true,
            features: Vec::new(),
            valid_from: None,
            valid_until: None,
            offline_grace_seconds: None,
        };
        let clients = (0..rng.u8(3..7)).map(client).collect::<Result<_, _>>()?;
        let pool = Uuid::from_u128(1);
        let mut world = Self {
            now: 0,
            log: Referee::new(rules, pool, terms, 0),
            log_away: false,
            away_since: 0,
            gate: Gate { up: true, ..Gate::default() },
            replicas: (0..rng.u8(2..4)).map(|_| Replica::new(LicenseId(pool), rules)).collect(),
            clients,
            flights: Vec::new(),
            replies: Vec::new(),
            keys: HashMap::new(),
            sent: Vec::new(),
            given_up: Vec::new(),
            steadfast: rng.bool(),
            next_id: 0,
            tally: Tally::default(),
            rng,
        };
        for _ in 0..STEPS {
            world.step()?;
            check::closed_is_closed(&world.log)?;
            check::believers_hold(&world.clients, &world.log, &world.given_up, world.now)?;
        }
        world.heal()?;
        check::folds_agree(&world.log)?;
        check::a_key_has_one_session(&world.log, &world.keys)?;
        world.tally.count("conflicts", world.log.conflicts);
        world.tally.count("repeats", world.log.repeats);
        world.tally.count("repairs", world.gate.repairs);
        world.tally.count("lies", world.gate.lies);
        Ok(world.tally)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.u8(..100) {
            0..22 => self.client_acts(),
            22..42 => self.replica_begins(),
            42..66 => self.flight_arrives(),
            66..80 => self.reply_arrives()?,
            80..88 => self.time_passes()?,
            88..92 => self.log_ticks(),
            92..94 => self.reaper_acts(),
            94..96 => self.admin_acts()?,
            _ => self.fault()?,
        }
        Ok(())
    }

    fn some_replica(&mut self) -> usize {
        self.rng.usize(..self.replicas.len())
    }

    /// A client that waits for nothing asks something; one that waited long enough asks again.
    fn client_acts(&mut self) {
        let index = self.rng.usize(..self.clients.len());
        let patience_is_over = self.rng.u8(..4) == 0;
        let client = &mut self.clients[index];
        if client.waiting.is_some() && !patience_is_over {
            return;
        }
        let kind = match client.held {
            None => Kind::Acquire,
            Some(_) if self.rng.u8(..3) == 0 => Kind::Release,
            Some(_) => Kind::Heartbeat,
        };
        self.send(index, kind);
    }

    fn send(&mut self, index: usize, kind: Kind) {
        self.next_id += 1;
        let id = self.next_id;
        let with_key = self.rng.bool();
        let client = &mut self.clients[index];
        client.waiting = Some(Waiting { id, kind, sent: self.now });
        let what = match (kind, client.held) {
            (Kind::Heartbeat, Some(held)) => {
                What::Heartbeat { session_id: held.session, user_id: client.user_id.clone() }
            }
            (Kind::Release, Some(held)) => {
                // From here on it does not work any more, whatever the answer.
                client.held = None;
                self.given_up.push(held.session);
                What::Decision(release(held.session, &client.user_id))
            }
            _ => {
                if client.key.is_none() && with_key {
                    client.key = Some(format!("key-{id}"));
                }
                What::Decision(Command::Acquire {
                    session_id: session(id),
                    user_id: client.user_id.clone(),
                    hardware_id: client.hardware_id.clone(),
                    machine_name: None,
                    key: client.key.clone().map(|key| IdempotencyKey { key, request_hash: Vec::new() }),
                    renews: None,
                })
            }
        };
        let ask = Ask { id, client: Some(index), what };
        self.remember_key(&ask);
        self.sent.push(ask.clone());
        let replica = self.some_replica();
        if self.rng.u8(..20) == 0 {
            // Lost on its way.
            return;
        }
        self.replicas[replica].inbox.push(ask.clone());
        if self.rng.u8(..12) == 0 {
            self.tally.count("sent twice", 1);
            let other = self.some_replica();
            let again = self.fresh(ask);
            self.replicas[other].inbox.push(again);
        }
    }

    fn around(&mut self) -> (&mut Vec<Replica>, Surroundings<'_>) {
        let around = Surroundings {
            log: &mut self.log,
            log_away: self.log_away,
            gate: &mut self.gate,
            now: self.now,
            rng: &mut self.rng,
            replies: &mut self.replies,
        };
        (&mut self.replicas, around)
    }

    fn replica_begins(&mut self) {
        let index = self.some_replica();
        if !self.replicas[index].frozen && self.replicas[index].can_begin() {
            self.begin(index);
        }
    }

    fn begin(&mut self, index: usize) {
        let (replicas, mut around) = self.around();
        let job = replicas[index].begin(&mut around);
        self.takes_off(index, job);
        self.tally.count("beats beside a batch", self.replicas[index].beats_beside_a_batch().into());
    }

    fn takes_off(&mut self, replica: usize, job: Option<Arc<Job>>) {
        if let Some(job) = job {
            let life = self.replicas[replica].life;
            self.flights.push(Flight { replica, life, job, ghost: false });
        }
    }

    /// An append reaches the log; its answer reaches the replica, or is lost and the same is sent again.
    fn flight_arrives(&mut self) {
        if self.log_away || self.flights.is_empty() {
            return;
        }
        let which = self.rng.usize(..self.flights.len());
        let flight = self.flights.swap_remove(which);
        let appended = self.log.append(&flight.job, self.now);
        let replica = &self.replicas[flight.replica];
        if flight.ghost || replica.life != flight.life {
            self.tally.count("late", 1);
            return;
        }
        if replica.frozen {
            // The answer is there when it wakes up; until then the same may be asked again.
            self.flights.push(flight);
            return;
        }
        match self.rng.u8(..10) {
            0 => {
                self.tally.count("answers lost", 1);
                self.flights.push(flight);
            }
            1 => {
                self.tally.count("sent twice", 1);
                self.flights.push(Flight { ghost: true, ..flight.clone() });
                self.hand_over(&flight, appended);
            }
            _ => self.hand_over(&flight, appended),
        }
    }

    fn hand_over(&mut self, flight: &Flight, appended: events::Appended) {
        let (replicas, mut around) = self.around();
        let job = replicas[flight.replica].answered(&flight.job, appended, &mut around);
        self.takes_off(flight.replica, job);
    }

    fn reaper_acts(&mut self) {
        let index = self.some_replica();
        self.next_id += 1;
        let overdue = self.log.seats.values().any(|seat| seat.deadline < self.now);
        let what = What::Decision(Command::Expire { overdue });
        let ask = Ask { id: self.next_id, client: None, what };
        self.replicas[index].inbox.push(ask);
    }

    /// Limits go up and down; sessions are revoked; the tenant is switched off and on, unless somebody's patience is tested.
    fn admin_acts(&mut self) -> Result<(), String> {
        if self.log_away {
            return Ok(());
        }
        match self.rng.u8(..4) {
            0 | 1 => {
                let seats = Seats::new(self.rng.i64(0..5)).map_err(|error| error.to_string())?;
                let change = LicenseChange { seats_total: Some(seats), ..LicenseChange::default() };
                self.log.change(change, self.now);
            }
            2 if !self.steadfast => self.log.tenant_active = !self.log.tenant_active,
            _ => {
                let Some(session) = self.log.seats.keys().next().copied() else { return Ok(()) };
                self.given_up.push(session);
                self.tally.count("revoked", 1);
                self.next_id += 1;
                let (by, reason) = ("admin".to_owned(), "left".to_owned());
                let what = What::Decision(Command::Revoke { session_id: session, by, reason });
                let index = self.some_replica();
                self.replicas[index].inbox.push(Ask { id: self.next_id, client: None, what });
            }
        }
        Ok(())
    }

    /// The same request once more: nobody waits for this answer, and a grant would be another session.
    fn fresh(&mut self, mut ask: Ask) -> Ask {
        self.next_id += 1;
        if let What::Decision(Command::Acquire { session_id, .. }) = &mut ask.what {
            *session_id = session(self.next_id);
        }
        let again = Ask { id: self.next_id, client: None, what: ask.what };
        self.remember_key(&again);
        again
    }

    fn remember_key(&mut self, ask: &Ask) {
        if let Some(Command::Acquire { session_id, key: Some(key), .. }) = ask.command() {
            self.keys.insert(*session_id, key.key.clone());
        }
    }
}

fn client(n: u8) -> Result<Client, String> {
    Ok(Client {
        user_id: UserId::new(format!("user-{n}")).map_err(|error| error.to_string())?,
        hardware_id: HardwareId::new(format!("machine-{n}")).map_err(|error| error.to_string())?,
        waiting: None,
        held: None,
        key: None,
    })
}

fn release(session_id: SessionId, user_id: &UserId) -> Command {
    Command::Release { session_id, user_id: user_id.clone(), give_back: false, forget: None }
}

fn session(id: u64) -> SessionId {
    SessionId(Uuid::from_u128(0x1000 + u128::from(id)))
}
