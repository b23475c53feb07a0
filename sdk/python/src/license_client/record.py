"""What is written down of a seat, for the other processes of this user and for a start without network.

One directory a user and server: `license/<server and product>/<user>/` with the sealed `seat`, the lock files,
and one level up the sealed name of the user who was last here.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .clock import Moment
from .config import Settings
from .errors import StateTampered
from .seal import SealedFile, sealing_key
from .sharing import Holder

_log = logging.getLogger("license_client")


@dataclass(frozen=True)
class SeatRecord:
    """A seat as last heard of. Durations in seconds."""

    token: str = field(repr=False)
    session_id: str
    interval: float
    ttl: float
    fetched: Moment
    """When the request was sent that brought the token: its life is counted from here."""
    contact: Moment
    """When the last request was sent that the server answered for this session."""
    mark: float
    """The highest reading of the wall clock that is known to be true (seconds since the epoch)."""
    released: bool = False

    def as_record(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "fetched": self.fetched.as_record(),
            "contact": self.contact.as_record(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> SeatRecord:
        return cls(
            token=str(record["token"]),
            session_id=str(record["session_id"]),
            interval=float(record["interval"]),
            ttl=float(record["ttl"]),
            fetched=Moment.from_record(record["fetched"]),
            contact=Moment.from_record(record["contact"]),
            mark=float(record["mark"]),
            released=bool(record["released"]),
        )


class Slot:
    """The files of one user at one server for one product."""

    def __init__(self, settings: Settings, key: bytes, user: str) -> None:
        self.user = user
        self.directory = server_directory(settings) / _short(user)
        self.holder = Holder(self.directory)
        self.beat_lock = self.directory / "beat.lock"
        self._seat = SealedFile(self.directory / "seat", key)

    def load(self) -> SeatRecord | None:
        """The record, None if there is none. StateTampered."""
        record = self._seat.load()
        if record is None:
            return None
        try:
            return SeatRecord.from_record(record)
        except (KeyError, TypeError, ValueError):  # of another version
            return None

    def peek(self) -> SeatRecord | None:
        """`load` for which a broken seal is the same as no record."""
        try:
            return self.load()
        except StateTampered:
            return None

    def save(self, record: SeatRecord, *, durable: bool = False) -> None:
        """Write it down. A disk that refuses costs the offline start and the sharing, not the seat."""
        try:
            self._seat.save(record.as_record(), durable=durable)
        except OSError as error:
            _log.warning("license state not written: %s", error)

    def forget(self) -> None:
        self._seat.remove()


class LastUser:
    """Who was last here: needed when the network is gone and the identity provider with it."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._file = SealedFile(server_directory(settings) / "user", key)

    def load(self) -> str | None:
        try:
            record = self._file.load()
        except StateTampered:
            return None
        user = record.get("user") if record else None
        return user if isinstance(user, str) else None

    def save(self, user: str) -> None:
        if self.load() != user:
            try:
                self._file.save({"user": user})
            except OSError:
                pass


def server_directory(settings: Settings) -> Path:
    return settings.license_directory / _short(f"{settings.api_url}\0{settings.product}")


def key_for(settings: Settings, hardware_id: str) -> bytes:
    return sealing_key(settings.license_directory, hardware_id)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
