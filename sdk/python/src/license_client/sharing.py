"""Who else on this machine runs on the same seat.

Each client that holds the seat keeps a file in `holders/` locked for as long as its process lives. The kernel
drops the lock when a process dies, however it dies, so counting the locked files counts the living; no process
id is ever guessed at. Only the last one that leaves gives the seat back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from .files import close_locked, locked, open_locked, private_directory


class Holder:
    """This client's place among the holders of one seat. Without a writable disk it is alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "holders"
        self.door = directory / "door.lock"
        """Taken to join and to leave, so that nobody joins while the last one gives the seat back."""
        self.fd: int | None = None
        self._path: Path | None = None
        self._heir: tuple[int, Path] | None = None

    def join(self, wait_seconds: float) -> None:
        """Count as a holder from now on. Waits for one who is just leaving."""
        if self.fd is not None:
            return
        with locked(self.door, wait_seconds):
            made = self._make()
            if made:
                self.fd, self._path = made

    def leave(self) -> None:
        """No longer count (the door is the caller's business)."""
        if self.fd is not None and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            close_locked(self.fd)
        self.fd = self._path = None

    def others(self) -> int:
        """How many other clients hold the seat now. Clears away what crashed ones left."""
        count = 0
        try:
            files = sorted(self._directory.iterdir())
        except OSError:
            return 0
        for path in files:
            if path == self._path:
                continue
            if path.name.startswith("."):  # being made
                continue
            try:
                fd = open_locked(path)
            except OSError:
                count += 1
                continue
            if fd is None:
                count += 1
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
                close_locked(fd)
        return count

    def _make(self) -> tuple[int, Path] | None:
        """A locked file that appears under its name only when it is locked, so nobody clears it away."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        scratch, path = self._directory / f".{name}", self._directory / name
        try:
            private_directory(self._directory)
            if os.name == "nt":  # an open file cannot be renamed there; the door keeps the others out
                fd = open_locked(path)
                return (fd, path) if fd is not None else None
            fd = open_locked(scratch, os.O_EXCL)
            if fd is None:
                return None
            scratch.rename(path)
        except OSError:
            return None
        return fd, path

    # A forked child holds the seat too. Its file is made and locked before the fork, so that at no moment
    # between the parent's exit and the child's first breath the seat has no holder.

    @property
    def heir(self) -> int | None:
        """The descriptor made for the child, between the two halves of a fork."""
        return self._heir[0] if self._heir else None

    def before_fork(self) -> None:
        self._heir = self._make() if self.fd is not None else None

    def after_fork_in_parent(self) -> None:
        if self._heir:
            close_locked(self._heir[0])  # the child has it open too, so it stays locked
        self._heir = None

    def after_fork_in_child(self) -> None:
        """The parent's own descriptor is closed by `files.forget_after_fork`."""
        if self.fd is not None:
            self.fd, self._path = self._heir or (None, None)
        self._heir = None
