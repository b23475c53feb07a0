#!/usr/bin/env python3
"""Clients note what they did and when, over two replicas; afterwards events, state at 300 instants, refusals and usage must tell the same.

The clients' own notes are the measure. Each act lies between two times of the client's clock, which is Postgres's here."""

import random
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from stand.drill import folder
from stand.engines import Postgres
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service, call

SEATS, USERS, SECONDS, INSTANTS = 6, 14, 15, 300
TTL = timedelta(seconds=3)
# A session is ended by the first look after its deadline.
REAPED = timedelta(seconds=3)
# Times are cut to milliseconds.
MS = timedelta(milliseconds=1)


def now() -> datetime:
    return datetime.now(timezone.utc)


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def text_of(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Act:
    """A request with its answer, and the times between which it took effect."""

    what: str
    user: str
    session: str
    status: int
    outcome: str
    sent: datetime
    answered: datetime

    def covers(self, event: dict[str, Any]) -> bool:
        return self.sent - MS <= time_of(event["occurred_at"]) <= self.answered + MS


@dataclass
class Notes:
    """What the clients did."""

    acts: list[Act] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, what: str, outcome: str) -> list[Act]:
        return [act for act in self.acts if act.what == what and act.outcome == outcome]


class Client(threading.Thread):
    """One user: acquires, shows signs of life, releases or walks away."""

    def __init__(self, service: Service, tenant: str, name: str, notes: Notes) -> None:
        super().__init__()
        self.service, self.user, self.notes = service, name, notes
        self.token = service.issuer.token(name, tenant_id=tenant)
        self.random = random.Random(name)

    def act(self, what: str, body: dict[str, str]) -> Act:
        sent = now()
        url = self.random.choice(self.service.urls)
        status, answer = call(url, "POST", f"/api/v1/licenses/{what}", body, self.token)
        session = answer.get("session_id") or body.get("session_id", "")
        outcome = answer.get("status") if status == 200 else answer.get("code")
        act = Act(what, self.user, session, status, outcome, sent, now())
        with self.notes.lock:
            self.notes.acts.append(act)
        return act

    def acquire(self) -> Act:
        return self.act("acquire", {"hardware_id": f"machine-of-{self.user}"})

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            seat = self.acquire()
            if seat.status != 200:
                time.sleep(self.random.uniform(0.05, 0.6))
                continue
            for _ in range(self.random.randrange(4)):
                time.sleep(self.random.uniform(0.05, 0.4))
                if self.random.random() < 0.2:
                    self.acquire()
                else:
                    self.act("heartbeat", {"session_id": seat.session})
            if self.random.random() < 0.15:
                time.sleep((TTL + REAPED).total_seconds())
            else:
                self.act("release", {"session_id": seat.session})
                time.sleep(self.random.uniform(0, 0.3))


class Told:
    """What the service tells of it."""

    def __init__(self, service: Service, tenant: str) -> None:
        self.service, self.path = service, f"/api/v1/tenants/{tenant}"
        self.events = self.all("events")

    def all(self, what: str) -> list[Any]:
        items: list[Any] = []
        after = ""
        while True:
            page = self.service.admin("GET", f"{self.path}/{what}?limit=1000{after}")
            items += page["items"]
            if not page["next"]:
                return items
            after = f"&after={page['next']}"

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event["type"] == kind]

    def by_session(self, kind: str) -> dict[str, Any]:
        return {event["session_id"]: event for event in self.of(kind)}


def check_events(notes: Notes, told: Told) -> None:
    grants = {act.session: act for act in notes.of("acquire", "granted")}
    releases = {act.session: act for act in notes.of("release", "released")}
    for kind, mine in (("seat_acquired", grants), ("seat_released", releases)):
        theirs = told.by_session(kind)
        same = theirs.keys() == mine.keys() and len(theirs) == len(told.of(kind))
        expect(
            same and all(mine[one].covers(theirs[one]) for one in mine),
            f"{kind}: the {len(mine)} that clients saw, each in its time",
        )
    beats = sorted(notes.of("heartbeat", "ok") + notes.of("acquire", "renewed"), key=lambda act: act.sent)
    last = {act.session: act for act in [*grants.values(), *beats]}
    expect(len(beats) == len(told.of("seat_heartbeat")), f"seat_heartbeat: {len(beats)}")
    expired = told.by_session("seat_expired")
    fine = all(
        last[one].sent + TTL - MS <= time_of(event["occurred_at"]) <= last[one].answered + TTL + REAPED
        for one, event in expired.items()
        if one in last
    )
    expect(
        expired.keys() == grants.keys() - releases.keys() and fine,
        f"seat_expired: the {len(expired)} that nobody released, in their time",
    )
    denied = notes.of("acquire", "no_seats_available")
    same = len(denied) == len(told.of("seat_denied"))
    for user in {act.user for act in denied}:
        mine_of = sorted((act for act in denied if act.user == user), key=lambda act: act.sent)
        theirs_of = sorted(
            (one for one in told.of("seat_denied") if one["user_id"] == user), key=lambda one: str(one["occurred_at"])
        )
        same = same and len(mine_of) == len(theirs_of) and all(map(Act.covers, mine_of, theirs_of))
    expect(same, f"seat_denied: the {len(denied)} that clients saw, each in its time")


def check_states(notes: Notes, told: Told, begun: datetime, ended: datetime) -> None:
    grants, releases = notes.of("acquire", "granted"), {act.session: act for act in notes.of("release", "released")}
    beats = sorted([*grants, *notes.of("heartbeat", "ok"), *notes.of("acquire", "renewed")], key=lambda act: act.sent)
    last, expired = {act.session: act for act in beats}, told.by_session("seat_expired")
    wrong = []
    for _ in range(INSTANTS):
        stamp = text_of(begun + random.random() * (ended - begun))
        at = time_of(stamp)
        surely, perhaps = set(), set()
        for grant in grants:
            release = releases.get(grant.session)
            first_end = release.sent if release else last[grant.session].sent + TTL
            last_end = release.answered if release else time_of(expired[grant.session]["occurred_at"])
            if grant.answered + MS <= at < first_end - MS:
                surely.add(grant.session)
            if grant.sent - MS <= at <= last_end + MS:
                perhaps.add(grant.session)
        pool = told.service.admin("GET", f"{told.path}/state?at={stamp}")["licenses"][0]
        there = {session["session_id"] for session in pool["sessions"]}
        if not surely <= there <= perhaps or pool["seats_used"] != len(there) or len(there) > SEATS:
            wrong.append(stamp)
    expect(
        not wrong,
        f"state: at {INSTANTS} instants whoever held a seat for certain is there, and nobody who cannot have held one {wrong[:2]}",
    )


def check_denials(told: Told) -> None:
    denials, wrong = told.all("denials"), []
    key = {(event["occurred_at"], event["user_id"]) for event in told.of("seat_denied")}
    for denial in denials:
        denied_at = time_of(denial["denied_at"])
        own = (time_of(one["occurred_at"]) for one in told.of("seat_acquired") if one["user_id"] == denial["user_id"])
        after = min((at for at in own if at >= denied_at), default=None)
        outcome = denial["granted_after_seconds"]
        expected = None if after is None else (after - denied_at).total_seconds()
        if (expected is None) != (outcome is None) or abs((expected or 0) - (outcome or 0)) > 1e-6:
            wrong.append(denial)
    same = {(one["denied_at"], one["user_id"]) for one in denials} == key and len(denials) == len(
        told.of("seat_denied")
    )
    expect(same and not wrong, f"denials: {len(denials)}, each with what came of it {wrong[:1]}")


def check_usage(told: Told, begun: datetime) -> None:
    ends = {**told.by_session("seat_released"), **told.by_session("seat_expired")}
    moves = sorted(
        [(time_of(event["occurred_at"]), 1) for event in told.of("seat_acquired")]
        + [(time_of(ends[event["session_id"]]["occurred_at"]), -1) for event in told.of("seat_acquired")]
    )
    buckets, wrong = 0, []
    hour = begun.replace(minute=0, second=0, microsecond=0)
    minute = begun.replace(second=0, microsecond=0)
    for bucket, low, length in (("minute", minute, 60), ("hour", hour, 3_600), ("day", hour.replace(hour=0), 86_400)):
        high = low + timedelta(seconds=length * 2)
        items = told.service.admin("GET", f"{told.path}/usage?bucket={bucket}&from={text_of(low)}&to={text_of(high)}")[
            "items"
        ]
        for item in items:
            start, end = time_of(item["from"]), time_of(item["to"])
            buckets += 1
            for name in ("acquired", "denied", "released", "expired"):
                count = sum(start <= time_of(event["occurred_at"]) < end for event in told.of(f"seat_{name}"))
                if item[name] != count:
                    wrong.append((item, name, count))
            used = sum(step for at, step in moves if at < start)
            peak, area, since = used, 0.0, start
            for at, step in moves[bisect_left(moves, (start, -2)) : bisect_left(moves, (end, -2))]:
                area, since = area + used * (at - since).total_seconds(), at
                used += step
                peak = max(peak, used)
            average = (area + used * (end - since).total_seconds()) / length
            is_over = end <= now()
            if item["peak"] != peak or is_over and abs(item["average"] - average) > 1e-6:
                wrong.append((item, "peak, average", (peak, average)))
    expect(not wrong, f"usage: {buckets} buckets of minutes, hours and days {wrong[:1]}")


def main() -> None:
    where = folder("history")
    postgres = Postgres(where / "postgres")
    postgres.initdb()
    postgres.start()
    postgres.prepare(PROGRAM)
    ttl = str(int(TTL.total_seconds()))
    service = Service(where, postgres, SESSION_TTL_SECONDS=ttl, HEARTBEAT_INTERVAL_SECONDS="1")
    tenant = service.tenant(SEATS)
    notes, begun = Notes(), now()
    clients = [Client(service, tenant, f"user-{number}", notes) for number in range(USERS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    ended = now()
    time.sleep((TTL + REAPED).total_seconds())
    say(f"{len(notes.acts)} requests of {USERS} clients for {SEATS} seats over two replicas")
    strange = [
        act for act in notes.acts if act.outcome not in ("granted", "renewed", "no_seats_available", "ok", "released")
    ]
    expect(not strange, f"no other answer than a seat, a refusal, a sign of life, a release {strange[:1]}")
    told = Told(service, tenant)
    check_events(notes, told)
    check_states(notes, told, begun, ended)
    check_denials(told)
    check_usage(told, begun)
    finish()


if __name__ == "__main__":
    main()
