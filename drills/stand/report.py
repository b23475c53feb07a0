"""What a drill says, and what it insists on."""

import sys
import time

_BEGUN = time.monotonic()
_FAILED: list[str] = []
_PASSED = 0


def say(text: str) -> None:
    print(f"{time.monotonic() - _BEGUN:6.1f} s  {text}", flush=True)


def expect(fine: bool, what: str) -> None:
    """A condition of success; the drill goes on, and fails at its end."""
    global _PASSED
    if fine:
        _PASSED += 1
        say(f"ok    {what}")
    else:
        _FAILED.append(what)
        say(f"FAIL  {what}")


def finish() -> None:
    print(f"{_PASSED} passed, {len(_FAILED)} failed", flush=True)
    sys.exit(1 if _FAILED else 0)
