"""What a drill says, and what it insists on. With DRILL_WRITE_RUNBOOK=1 what it said goes into its section of docs/RUNBOOK.md."""

import os
import re
import sys
import time
from pathlib import Path

_BEGUN = time.monotonic()
_FAILED: list[str] = []
_PASSED = 0
_SAID: list[str] = []
RUNBOOK = Path(__file__).resolve().parents[2] / "docs/RUNBOOK.md"


def say(text: str) -> None:
    line = f"{time.monotonic() - _BEGUN:6.1f} s  {text}"
    _SAID.append(line[:160].rstrip())
    print(line, flush=True)


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
    closing = f"{_PASSED} passed, {len(_FAILED)} failed"
    print(closing, flush=True)
    if os.environ.get("DRILL_WRITE_RUNBOOK") and not _FAILED:
        name = Path(sys.argv[0]).stem
        text = RUNBOOK.read_text(encoding="utf-8")
        block = re.search(rf"`drills/run\.sh {name}`.*?```text\n(.*?)```", text, flags=re.S)
        if block:
            start, end = block.span(1)
            RUNBOOK.write_text(text[:start] + "\n".join([*_SAID, closing]) + "\n" + text[end:], encoding="utf-8")
    sys.exit(1 if _FAILED else 0)
