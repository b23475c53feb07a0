"""What can be known on this machine alone: for `status` and `verify`, and to release what another process left."""

from __future__ import annotations

from typing import Any

from .client import LicenseClient
from .clock import Moment
from .config import Settings
from .errors import LicenseError
from .hardware import fingerprint
from .keys import KeyStore
from .record import LastUser, SeatRecord, Slot, key_for, server_directory
from .seal import SealedFile
from .seat import Seat
from .transport import Transport
from .verify import TokenVerifier


def machine_keys(settings: Settings) -> tuple[TokenVerifier, str]:
    """A verifier with this machine's cache, and its hardware id."""
    hardware_id = fingerprint(settings.home, override=settings.hardware_id)
    cache = SealedFile(server_directory(settings) / "keys", key_for(settings, hardware_id))
    keys = KeyStore(Transport(settings.api_url, settings.timeout_seconds), cache, settings.bundled_keys)
    verifier = TokenVerifier(keys, issuer=settings.license_issuer, audience=settings.license_audience)
    return verifier, hardware_id


def stored_token(settings: Settings) -> str | None:
    """The license token of the user who was last here."""
    found = _last_seat(settings)
    return found[1].token if found else None


def local_state(settings: Settings) -> dict[str, Any]:
    """State, times and holders as the files have them. StateTampered."""
    found = _last_seat(settings)
    if found is None:
        return {"state": "idle", "valid": False}
    slot, record = found
    verifier, hardware_id = machine_keys(settings)
    known: dict[str, Any] = {
        "state": "released" if record.released else "active",
        "session_id": record.session_id,
        "holders": slot.holder.others(),
        "last_contact_seconds": round(record.contact.seconds_until(Moment.now()), 1),
    }
    if not record.released and known["last_contact_seconds"] > record.ttl:
        known["state"] = "offline" if known["holders"] else "ended"
    try:
        seat = Seat.stored(record, verifier, hardware_id, settings.product)
    except LicenseError as error:
        return {**known, "valid": False, "error": str(error)}
    claims = seat.claims
    return {
        **known,
        "valid": True,
        "user_id": claims.user_id,
        "plan": claims.plan,
        "features": claims.features,
        "expires_at": claims.expires_at,
        "seconds_left": round(seat.seconds_left(), 1),
    }


def local_client(settings: Settings) -> LicenseClient | None:
    """A client that takes over the stored seat without asking for one, to release it."""
    found = _last_seat(settings)
    if found is None or found[1].released:
        return None
    client = LicenseClient(settings=settings, heartbeat_thread=False)
    return client if client._take_over(found[0].user, found[1]) else None


def _last_seat(settings: Settings) -> tuple[Slot, SeatRecord] | None:
    key = key_for(settings, fingerprint(settings.home, override=settings.hardware_id))
    user = settings.user_id or LastUser(settings, key).load()
    if user is None:
        return None
    slot = Slot(settings, key, user)
    record = slot.load()
    return (slot, record) if record else None
