"""The machine's fingerprint: one opaque id, stable for years, from parts that are hashed one by one.

Computed from what does not move (built-in network cards, disk serial, CPU, machine id), then kept in
`~/.coditect/hardware_id` and only recomputed when the machine is clearly another one: a dock, a VPN, another
network or a reboot changes nothing, a cloned disk does. Containers have no hardware of their own: there the
container's instance id takes its place. `CODITECT_HARDWARE_ID` overrides all of it (CI).
Only the final id is ever sent; no part leaves the machine, not even hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .files import locked, write_private

_VALID = re.compile(r"[A-Za-z0-9._:-]{8,128}\Z")
_RECHECK_SECONDS = 86_400.0
_TELLING = ("machine_id", "mac", "disk")
"""Parts that tell two machines of one model apart (a CPU does not)."""


def check_hardware_id(value: str) -> str:
    """`value` if the server would take it, else ConfigurationError."""
    if not _VALID.match(value):
        raise ConfigurationError("hardware_id: 8 to 128 characters of letters, digits and . _ : -")
    return value


def fingerprint(home: Path | None = None, *, override: str | None = None) -> str:
    """This machine's hardware id. Never fails for want of a source; `home` is where it is cached."""
    if override:
        return check_hardware_id(override)
    if home is None:
        from .config import default_home

        home = default_home()
    path = home / "hardware_id"
    kept = _read(path)
    if kept and sys.platform != "linux" and _checked_lately(path):
        return kept[0]
    from .hardware_parts import parts

    current = {name: [_digest(name, value) for value in values] for name, values in parts().items()}
    if kept and _same_machine(kept[1], current):
        return kept[0]
    with locked(home / "hardware_id.lock", 2.0):
        kept = _read(path)  # another process may have been faster
        if kept and _same_machine(kept[1], current):
            return kept[0]
        if not any(current.get(name) for name in (*_TELLING, "container")):
            current["random"] = [secrets.token_hex(32)]
        made = combine(current)
        try:
            text = f"{made}\n{json.dumps({'parts': current})}\n"
            write_private(path, text.encode(), durable=True)
        except OSError:
            pass  # a read-only home: computed anew at each start
    return made


def combine(hashed: dict[str, list[str]]) -> str:
    """SHA-256 over the hashed parts, whatever their order."""
    lines = sorted(f"{name}={digest}" for name, digests in hashed.items() for digest in digests)
    return hashlib.sha256("\n".join(["coditect-hardware-v1", *lines]).encode()).hexdigest()


def _checked_lately(path: Path) -> bool:
    """Where asking the system means starting programs, that is done once a day."""
    try:
        age_seconds = time.time() - path.stat().st_mtime
        if 0 <= age_seconds < _RECHECK_SECONDS:
            return True
        os.utime(path)
    except OSError:
        pass
    return False


def _digest(name: str, value: str) -> str:
    text = f"coditect-hardware-v1\0{name}\0{value.strip().lower()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> tuple[str, dict[str, list[str]]] | None:
    try:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        record: Any = json.loads(rest) if rest.strip() else {}
        stored = record.get("parts", {})
    except (OSError, ValueError, AttributeError):
        return None
    if not _VALID.match(first.strip()) or not isinstance(stored, dict):
        return None
    return first.strip(), stored


def _same_machine(stored: dict[str, list[str]], current: dict[str, list[str]]) -> bool:
    """Whether the cached id still belongs to this machine: more telling parts agree than differ.

    A cloned VM keeps the machine id and gets another network card (and mostly another disk): a draw, so it
    is another machine. A new network card beside the same disk and machine id is the same one.
    """
    if not stored:
        return True  # an id alone, put there by an administrator
    if "container" in current or "container" in stored:
        return "container" in current and "container" in stored  # the cache travels with the volume
    agree = differ = 0
    for name in _TELLING:
        old, new = stored.get(name), current.get(name)
        if old and new:
            if set(old) & set(new):
                agree += 1
            else:
                differ += 1
    return agree > differ or (agree == differ == 0)
