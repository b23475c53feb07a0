"""The process around the clients: its exit and its forks. Registered once, when the first client is made."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

from . import files

if TYPE_CHECKING:
    from .client import LicenseClient

_clients: weakref.WeakSet[LicenseClient] = weakref.WeakSet()
_registered = False
_guard = threading.Lock()


def watch(client: LicenseClient) -> None:
    """From now on `client` hears of forks and of the exit."""
    global _registered  # noqa: PLW0603 - once a process
    with _guard:
        _clients.add(client)
        if _registered:
            return
        _registered = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork,
                after_in_parent=_after_fork_in_parent,
                after_in_child=_after_fork_in_child,
            )


def _at_exit() -> None:
    """Threads can no longer be started here, so each client's own thread does the releasing, for a bounded time."""
    for client in list(_clients):
        client._at_exit()


def _before_fork() -> None:
    for client in list(_clients):
        holder = client._holder()
        if holder is not None:
            holder.before_fork()
    files.hold_for_fork()


def _after_fork_in_parent() -> None:
    files.resume_after_fork()
    for client in list(_clients):
        holder = client._holder()
        if holder is not None:
            holder.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Lock()
    holders = [holder for client in list(_clients) if (holder := client._holder()) is not None]
    files.forget_after_fork({holder.heir for holder in holders if holder.heir is not None})
    for holder in holders:
        holder.after_fork_in_child()
    for client in list(_clients):
        client._after_fork_in_child()
