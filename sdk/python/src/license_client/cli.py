"""`license-client`: the package from a shell.

Exit codes: 0 good · 1 another error · 2 usage · 3 no seat, or lost · 4 login · 5 server out of reach ·
6 token does not verify.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .config import Settings, load_settings
from .errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidLicenseToken,
    LicenseError,
    LicenseLost,
    Refused,
    Transient,
)

if TYPE_CHECKING:
    from .models import LicenseStatus

_CODES: tuple[tuple[type[LicenseError], int], ...] = (
    (ConfigurationError, 2),
    (Refused, 3),
    (LicenseLost, 3),
    (AuthenticationError, 4),
    (Transient, 5),
    (InvalidLicenseToken, 6),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    given = {name: getattr(options, name) for name in ("api_url", "home", "token", "product", "hardware_id")}
    try:
        code: int = options.run(load_settings(**given), options)
    except LicenseError as error:
        print(f"license-client: {error}", file=sys.stderr)
        return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    return code


def acquire(settings: Settings, options: argparse.Namespace) -> int:
    """Get a seat; with --hold keep it until a signal comes, without it leave it to run out or to `release`."""
    from .client import LicenseClient

    over, held = threading.Event(), threading.Event()

    def tell(now: LicenseStatus) -> None:
        if held.is_set():  # how it begins is said below
            _say(options, now)

    client = LicenseClient(
        settings=settings,
        heartbeat_thread=options.hold,
        on_lost=lambda status: over.set(),
        on_offline=tell,
        on_online=tell,
        on_waiting=lambda status: print(f"waiting: {status.error}", file=sys.stderr),
    )
    if options.hold:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: over.set())
    client.acquire(wait=True if options.wait is not None and options.wait < 0 else options.wait)
    _say(options, client.status)
    held.set()
    if not options.hold:
        client.detach()
        return 0
    while not over.wait(1.0):  # in slices: a signal wakes no wait without end everywhere
        pass
    lost = not client.status.usable
    if lost:
        print(f"license lost: {client.status.error}", file=sys.stderr)
    client.release()
    return 3 if lost else 0


def release(settings: Settings, options: argparse.Namespace) -> int:
    """Give back what `acquire` without --hold took."""
    from .local import local_client

    client = local_client(settings)
    if client is None:
        print("no seat", file=sys.stderr)
        return 3
    return 0 if client.release() else 5


def status(settings: Settings, options: argparse.Namespace) -> int:
    """What this machine knows of its seat, without the network."""
    from .local import local_state

    found = local_state(settings)
    _print(options, found)
    return 0 if found.get("valid") else 3


def fingerprint(settings: Settings, options: argparse.Namespace) -> int:
    """This machine's hardware id."""
    from .hardware import fingerprint as compute
    from .hardware_parts import parts

    found = compute(settings.home, override=settings.hardware_id)
    if options.parts:
        _print(options, {"hardware_id": found, "parts": sorted(parts())})
    else:
        print(found)
    return 0


def verify(settings: Settings, options: argparse.Namespace) -> int:
    """Check a license token: an argument, `-` for standard input, or the stored one."""
    from .local import machine_keys, stored_token

    given: str | None = options.license_token
    text = sys.stdin.read().strip() if given == "-" else given
    text = text or stored_token(settings)
    if not text:
        print("no license token stored", file=sys.stderr)
        return 3
    verifier, hardware_id = machine_keys(settings)
    claims = verifier.verify(text, hardware_id=None if options.any_machine else hardware_id, ask=not options.offline)
    _print(options, asdict(claims))
    return 0


def login(settings: Settings, options: argparse.Namespace) -> int:
    """Sign in with the browser."""
    from .providers import subject_of
    from .signin import login as sign_in

    def show(line: str) -> None:
        print(line, file=sys.stderr)

    extra: dict[str, Any] = {"open_browser": lambda url: None} if options.no_browser else {}
    found = sign_in(settings, show=show, timeout_seconds=options.timeout, **extra)
    who = subject_of(found.bearer(settings.oidc_token))
    print(f"signed in as {who}")
    return 0


def keys(settings: Settings, options: argparse.Namespace) -> int:
    """The server's published keys, to be bundled with a product."""
    from .local import machine_keys

    verifier, _ = machine_keys(settings)
    if not verifier.keys.refresh():
        raise Transient("the key set is out of reach")
    print(json.dumps({"keys": verifier.keys.published()}, indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="license-client", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--api-url", help="the license server")
    parser.add_argument("--home", help="instead of ~/.coditect")
    parser.add_argument("--token", help="a ready JWT instead of the stored login")
    parser.add_argument("--product")
    parser.add_argument("--hardware-id", help="instead of the machine's fingerprint")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("-v", "--verbose", action="store_true")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(run: Any, name: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=run.__doc__.splitlines()[0], description=run.__doc__)
        command.set_defaults(run=run)
        return command

    command = add(acquire, "acquire")
    command.add_argument("--hold", action="store_true", help="keep it until Ctrl-C or SIGTERM, then release")
    command.add_argument("--wait", type=float, metavar="SECONDS", help="for a free seat; negative: for ever")
    add(release, "release")
    add(status, "status")
    add(fingerprint, "fingerprint").add_argument("--parts", action="store_true", help="name what it is made of")
    command = add(verify, "verify")
    command.add_argument("license_token", nargs="?")
    command.add_argument("--offline", action="store_true", help="with cached and bundled keys only")
    command.add_argument("--any-machine", action="store_true", help="do not compare the hardware id")
    command = add(login, "login")
    command.add_argument("--no-browser", action="store_true", help="only print the address")
    command.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS")
    add(keys, "keys")
    return parser


def _say(options: argparse.Namespace, now: Any) -> None:
    record = dict(vars(now))
    record["error"] = str(now.error) if now.error else None
    record["seats"] = f"{now.seats.used}/{now.seats.total}" if now.seats else None
    _print(options, record)


def _print(options: argparse.Namespace, record: dict[str, Any]) -> None:
    def plain(value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    if options.json:
        print(json.dumps(record, default=plain), flush=True)
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        if value not in (None, (), []):
            shown = ", ".join(value) if isinstance(value, tuple | list) else value
            print(f"{name:<{width}}  {plain(shown) if not isinstance(shown, str) else shown}")
    print(end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
