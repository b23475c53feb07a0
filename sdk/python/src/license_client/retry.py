"""Trying again: three times, doubling the wait, never sooner than the server asks, never beyond the budget."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from .clock import monotonic
from .errors import Transient

RETRIES = 3
FIRST_WAIT_SECONDS = 0.5
T = TypeVar("T")


class Stopped(Exception):
    """The wait was broken off because the client is stopping."""


def with_retries(
    attempt: Callable[[float], T],
    *,
    budget_seconds: float,
    pause: Callable[[float], bool],
    retries: int = RETRIES,
) -> T:
    """`attempt(seconds left)` until it succeeds or fails for good.

    Only Transient failures are repeated. The last one is raised when the retries are used up or when the next
    attempt would begin after the budget. `pause` waits, and returns True to break off (Stopped).
    """
    deadline = monotonic() + budget_seconds
    for number in range(retries + 1):
        try:
            return attempt(max(0.1, deadline - monotonic()))
        except Transient as error:
            wait = waiting_time(number, error.retry_after)
            if number == retries or monotonic() + wait >= deadline:
                raise
            if pause(wait):
                raise Stopped from error
    raise AssertionError("unreachable")


def waiting_time(number: int, retry_after: float | None) -> float:
    """Seconds before retry `number` (from 0): half a second doubling, or what the server asked and a little more."""
    wait = FIRST_WAIT_SECONDS * 2.0**number
    if retry_after is not None:
        return retry_after + wait * 0.2 * random.random()  # noqa: S311 - no secret
    return wait * (0.5 + 0.5 * random.random())  # noqa: S311
