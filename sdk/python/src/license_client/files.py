"""Private files: written whole or not at all, readable by their owner alone; and locks that die with their process."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.02

_descriptors: dict[int, tuple[int, int]] = {}
"""Our open lock files, by descriptor: device and inode. A program that closes all descriptors to become a daemon
may have given the number to another file, which is not ours to close."""
_descriptors_guard = threading.Lock()


def private_directory(path: Path) -> Path:
    """Make `path` (0700) with its parents. OSError if that cannot be."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:  # `parents=True` would make those for everybody to read
        private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace `path` by `data` atomically, mode 0600. `durable` waits for the disk. OSError if it fails."""
    private_directory(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(scratch, path)  # noqa: PTH105 - the same call on both sides of the line
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def open_locked(path: Path, flags: int = 0) -> int | None:
    """Open (creating, 0600) and lock `path` without waiting: its descriptor, or None if another holds it.

    The lock belongs to the open file, so two of one process exclude each other too, and the kernel drops it
    with the last descriptor: a crash leaves nothing locked.
    """
    with _descriptors_guard:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        _descriptors[fd] = _identity(fd)
    try:
        if _try_lock(fd):
            return fd
    except OSError:
        close_locked(fd)
        raise
    close_locked(fd)
    return None


def close_locked(fd: int) -> None:
    """Close a descriptor of `open_locked`, and with it (unless a forked child shares it) the lock."""
    with _descriptors_guard:
        _close_ours(fd, _descriptors.pop(fd, None))


def _close_ours(fd: int, known: tuple[int, int] | None) -> None:
    with contextlib.suppress(OSError):
        if known == _identity(fd):
            os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


@contextlib.contextmanager
def locked(path: Path, timeout_seconds: float) -> Iterator[bool]:
    """Hold the lock on `path` for a `with` block; yields False if it was not to be had in time.

    Every caller must be right without the lock as well: its holder may be frozen, or the disk read-only.
    """
    fd: int | None = None
    give_up = time.monotonic() + timeout_seconds
    try:
        private_directory(path.parent)
        while (fd := open_locked(path)) is None and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)
    except OSError:
        fd = None
    try:
        yield fd is not None
    finally:
        if fd is not None:
            close_locked(fd)


def hold_for_fork() -> None:
    """Before a fork: no descriptor may be half registered."""
    _descriptors_guard.acquire()


def resume_after_fork() -> None:
    """After a fork, in the parent."""
    _descriptors_guard.release()


def forget_after_fork(keep: set[int]) -> None:
    """After a fork, in the child: locks that other threads of the parent held are the parent's alone.

    Closing the copies here does not unlock them there.
    """
    for fd in [fd for fd in _descriptors if fd not in keep]:
        _close_ours(fd, _descriptors.pop(fd))
    _descriptors_guard.release()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
