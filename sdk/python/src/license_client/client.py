"""LicenseClient: what a program embeds."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .clock import monotonic
from .config import Settings, load_settings
from .errors import LicenseError, LicenseLost, Transient
from .heartbeat import HeartbeatThread, jittered
from .models import Grant, LicenseStatus, State
from .providers import Identity, TokenSource, subject_of
from .retry import Stopped

if TYPE_CHECKING:
    from .engine import Engine
    from .exchange import Exchange
    from .record import SeatRecord
    from .sharing import Holder

Callback = Callable[[LicenseStatus], Any]
EXIT_AFTER_SECONDS = 30.0
FOREVER_SECONDS = 10 * 365 * 86_400.0
_log = logging.getLogger("license_client")


class LicenseClient:
    """Holds one seat for this user on this machine, for as long as any process of theirs needs it.

        with LicenseClient("https://auth.coditect.ai", get_jwt, on_lost=save_and_quit) as license:
            ...

    `token_provider` is a JWT, a function that returns one (with a parameter `refresh` it is told when the last
    one was refused), an object with `get_token(refresh=…)`, or None for the login made by `license-client login`.
    Every other setting may be given by keyword, environment or config.toml (see `Settings`).

    Callbacks get a LicenseStatus: `on_granted` (a seat where there was none), `on_renewed` (a fresher token),
    `on_offline`, `on_online`, `on_lost`, `on_waiting`. They run on the thread that noticed, mostly the heartbeat's;
    what they raise is logged. `exit_on_lost` ends the program: KeyboardInterrupt in the main thread, and after
    30 seconds whatever is left. Methods may be called from any thread.
    """

    def __init__(
        self,
        api_url: str | None = None,
        token_provider: TokenSource = None,
        *,
        on_granted: Callback | None = None,
        on_renewed: Callback | None = None,
        on_offline: Callback | None = None,
        on_online: Callback | None = None,
        on_lost: Callback | None = None,
        on_waiting: Callback | None = None,
        exit_on_lost: bool = False,
        heartbeat_thread: bool = True,
        home: str | Path | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        """Reads the configuration; no network, no thread. ConfigurationError, TypeError for unknown options."""
        unknown = set(options) - set(Settings.__dataclass_fields__)
        if unknown:
            raise TypeError(f"LicenseClient has no option {', '.join(sorted(unknown))}")
        self.settings = settings or load_settings(api_url=api_url, home=home, **options)
        self._identity = Identity(token_provider, self.settings)
        self._callbacks = {
            "granted": on_granted,
            "renewed": on_renewed,
            "offline": on_offline,
            "online": on_online,
            "lost": on_lost,
            "waiting": on_waiting,
        }
        self._exit_on_lost = exit_on_lost
        self._threaded = heartbeat_thread
        self._thread: HeartbeatThread | None = None
        self._thread_over = False
        self._thread_guard = threading.Lock()
        self._stop = threading.Event()
        self._guard = threading.RLock()
        self._parts: tuple[Exchange, bytes] | None = None
        self._engine: Engine | None = None

    # -- the life of a seat --------------------------------------------------------------------------------

    def acquire(self, wait: float | bool | None = None) -> Grant:
        """Get the seat (or share the one this user already has on this machine) and keep it.

        `wait`: how many seconds to wait for a seat while all are in use; True waits for ever, None or False not
        at all. Without wait it returns within `acquire_seconds`, and within `offline_after_seconds` when a valid
        license token is stored: if the server is out of reach then, it starts in offline mode.

        Raises NoSeatsAvailable (used, total); Forbidden, LicenseInactive, LicenseExpired, TenantInactive,
        NotFound; AuthenticationError, LoginRequired; and with no valid token stored ServerUnreachable,
        ServiceUnavailable, RateLimited, OfflineGraceExpired, ClockRollback, StateTampered, InvalidLicenseToken.
        """
        from .process import watch

        seconds = FOREVER_SECONDS if wait is True else float(wait or 0.0)
        with self._guard:
            watch(self)
            self._stop.clear()
            began = monotonic()
            engine, obstacle = self._prepare()
            try:
                grant = engine.acquire(seconds, self._stop.wait, obstacle, monotonic() - began)
            except Stopped as error:
                raise LicenseLost("acquire was broken off by release") from error
            if self._stop.is_set():  # `release` came in between, and may have found nothing to release yet
                engine.release(self.settings.exit_seconds)
                raise LicenseLost("acquire was broken off by release")
            self._start_thread(engine)
        return grant

    def heartbeat(self) -> LicenseStatus:
        """One heartbeat now, for programs that run without the thread. LicenseLost if there is no seat."""
        engine = self._engine
        if engine is not None:
            engine.beat(self._stop.wait, now=True)
        return self.check()

    def release(self) -> bool:
        """Give the seat back unless another process of this user still uses it; takes at most `exit_seconds`.

        Never raises for the network: False means the server did not confirm, and the seat is free when its
        time is up (minutes).
        """
        self._stop.set()
        engine, thread = self._engine, self._thread
        if engine is None:
            return True
        limit = self.settings.exit_seconds
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            if thread is not None:
                thread.stop()
            self._thread = None
            return engine.release(limit)
        done: list[bool] = []

        def farewell() -> None:
            if self._stop.is_set():  # unless `acquire` was called again meanwhile
                done.append(engine.release(limit))

        thread.stop(farewell)
        thread.join(limit)
        self._thread = None
        return bool(done and done[0])

    def detach(self) -> None:
        """Stop here without giving the seat back: it runs out by itself, or another process goes on with it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.stop()
        if self._engine is not None:
            self._engine.detach()

    def check(self) -> LicenseStatus:
        """The status if the product may run. LicenseLost (with its cause) if not."""
        status = self.status
        if not status.usable:
            raise LicenseLost(f"no license: {status.error or status.state}") from status.error
        return status

    @property
    def status(self) -> LicenseStatus:
        """A snapshot; never waits, costs microseconds."""
        engine = self._engine
        return engine.status() if engine is not None else LicenseStatus(State.IDLE)

    @property
    def grant(self) -> Grant | None:
        """What is held now, with the newest token."""
        engine = self._engine
        return engine.seat.grant() if engine is not None and engine.seat and self.status.usable else None

    def has_feature(self, name: str) -> bool:
        """Whether the license in use includes `name`."""
        status = self.status
        return status.usable and name in status.features

    def __enter__(self) -> LicenseClient:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    # -- inside --------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Engine, LicenseError | None]:
        """The engine for the user whom the token names, and what stands between us and the server, if anything."""
        from .record import LastUser, Slot

        _, key = self._machine()
        last = LastUser(self.settings, key)
        obstacle: LicenseError | None = None
        user = self.settings.user_id
        known = user or last.load()
        kept = known is not None and Slot(self.settings, key, known).peek() is not None
        try:  # whoever can start offline does not wait for an identity provider that hangs
            subject = subject_of(self._identity.prime(self.settings.offline_after_seconds if kept else None))
            user = user or subject or "unknown"
        except Transient as error:
            obstacle = error
            user = user or last.load()
            if user is None:
                raise
        last.save(user)
        return self._engine_for(user), obstacle

    def _engine_for(self, user: str) -> Engine:
        from .engine import Engine
        from .record import Slot

        if self._engine is not None and self._engine.slot.user != user:
            if self._thread is not None:  # somebody else has signed in
                self._thread.stop()
                self._thread = None
            self._engine.release(self.settings.exit_seconds)
            self._engine = None
        if self._engine is None:
            exchange, key = self._machine()
            self._engine = Engine(self.settings, exchange, Slot(self.settings, key, user), self._tell)
        return self._engine

    def _take_over(self, user: str, record: SeatRecord) -> bool:
        """Hold what the files say that this user holds, so that it can be released. False if it is void."""
        from .seat import Seat

        engine = self._engine_for(user)
        exchange = engine.exchange
        try:
            seat = Seat.stored(record, exchange.verifier, exchange.hardware_id, self.settings.product)
        except LicenseError:
            return False
        engine.take_over(seat)
        return True

    def _machine(self) -> tuple[Exchange, bytes]:
        """What depends on the machine and the server only; made at the first acquire."""
        if self._parts is None:
            from .api import LicenseApi
            from .exchange import Exchange
            from .hardware import fingerprint
            from .keys import KeyStore
            from .record import key_for, server_directory
            from .seal import SealedFile
            from .transport import Transport
            from .verify import TokenVerifier

            settings = self.settings
            hardware_id = fingerprint(settings.home, override=settings.hardware_id)
            key = key_for(settings, hardware_id)
            transport = Transport(settings.api_url, settings.timeout_seconds)
            cache = SealedFile(server_directory(settings) / "keys", key)
            keys = KeyStore(transport, cache, settings.bundled_keys)
            verifier = TokenVerifier(keys, issuer=settings.license_issuer, audience=settings.license_audience)
            exchange = Exchange(LicenseApi(transport), self._identity, verifier, settings, hardware_id)
            self._parts = (exchange, key)
        return self._parts

    def _start_thread(self, engine: Engine) -> None:
        seat = engine.seat
        if not self._threaded or seat is None:
            return

        def beat(pause: Callable[[float], bool]) -> float | None:
            seconds = engine.beat(pause)
            if seconds is not None:
                return seconds
            with self._thread_guard:  # a callback, or another thread, may have acquired again meanwhile
                if engine.state in (State.ACTIVE, State.OFFLINE) and not self._stop.is_set():
                    return jittered(engine.due_in())
                self._thread_over = True
            return None

        with self._thread_guard:
            if self._thread is not None and self._thread.is_alive() and not self._thread_over:
                return
            self._thread_over = False
            first = min(1.0, seat.record.interval) if engine.state is State.OFFLINE else engine.due_in()
            self._thread = HeartbeatThread(beat, jittered(first), overslept=lambda seconds: engine.overslept())
            self._thread.start()

    def _tell(self, event: str, status: LicenseStatus) -> None:
        callback = self._callbacks.get(event)
        if callback is not None:
            try:
                callback(status)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                    raise  # a person's Ctrl-C, not the callback's doing
                _log.exception("the callback on_%s failed", event)
        if event == "lost" and self._exit_on_lost:
            _end_program()

    def _at_exit(self) -> None:
        if self._thread is not None or (self._engine is not None and self.status.usable):
            self.release()

    def _holder(self) -> Holder | None:
        return self._engine.slot.holder if self._engine is not None else None

    def _after_fork_in_child(self) -> None:
        """The child goes on with the seat: own locks, own connections, own thread."""
        self._guard = threading.RLock()
        self._thread_guard = threading.Lock()
        stopped = self._stop.is_set()
        self._stop = threading.Event()
        if stopped:
            self._stop.set()
        had_thread, self._thread = self._thread is not None, None
        if self._engine is not None:
            self._engine.after_fork_in_child()
            if had_thread and self._engine.state in (State.ACTIVE, State.OFFLINE):
                self._start_thread(self._engine)


def _end_program() -> None:
    """KeyboardInterrupt in the main thread, whatever it is waiting for; and the end after half a minute."""
    last = threading.Timer(EXIT_AFTER_SECONDS, os._exit, (70,))
    last.daemon = True
    last.start()
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # wakes it from a system call; interrupt_main does not
    else:
        _thread.interrupt_main()
