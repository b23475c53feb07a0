"""Settings: arguments first, then the environment, then the `[license]` table of `~/.coditect/config.toml`.

One rule for names: the setting `api_url` is the argument `api_url`, the variable `CODITECT_API_URL` and the
key `api_url`. `CODITECT_HOME` moves `~/.coditect`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError


def default_home() -> Path:
    """`$CODITECT_HOME`, else `~/.coditect`; a place that cannot be written to for a user without a home."""
    chosen = os.environ.get("CODITECT_HOME")
    if chosen:
        return Path(chosen)
    try:
        return Path.home() / ".coditect"
    except RuntimeError:  # a container's user that nobody has heard of: everything stays in memory
        return Path(os.devnull) / ".coditect"


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, with its default. Durations are in seconds."""

    home: Path
    api_url: str = "https://auth.coditect.ai"
    product: str = "coditect"
    user_id: str | None = None
    hardware_id: str | None = None
    """Instead of the machine's fingerprint (CI, containers that share a home)."""
    machine_name: str | None = None
    """What administrators see beside the session; the host name if None, nothing if empty."""
    token: str | None = field(default=None, repr=False)
    """A ready JWT instead of a login (CI)."""
    license_issuer: str = "https://auth.coditect.ai"
    license_audience: str = "coditect"
    bundled_keys: str | None = None
    """A file with a JWK set or PEM keys, beside those that the package brings."""
    timeout_seconds: float = 10.0
    """For one request to connect and to be answered."""
    acquire_seconds: float = 30.0
    """For acquire with its retries when no stored license token is at hand."""
    offline_after_seconds: float = 5.0
    """For acquire when a stored license token is at hand: then it starts offline."""
    exit_seconds: float = 2.0
    """The longest that release may hold up the end of the program."""
    allow_http: bool = False
    """Plain http to other hosts than this one. The token travels in the clear."""
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = field(default=None, repr=False)
    oidc_scope: str = "openid email offline_access"
    oidc_token: str = "id_token"  # noqa: S105 - which of the two, not a secret
    """Which token the license server gets: `id_token` or `access_token`."""
    identity_platform_key: str | None = None
    """Web API key of Google Identity Platform: the login is exchanged there for its tokens."""
    identity_platform_provider: str = "google.com"
    identity_platform_tenant: str | None = None
    keyring: bool = False
    """Keep the login in the system's keyring (extra `keyring`) instead of a 0600 file."""

    def __post_init__(self) -> None:
        url = urlsplit(self.api_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigurationError(f"api_url: not an http(s) address: {self.api_url!r}")
        if url.scheme == "http" and not self.allow_http and not is_loopback(url.hostname):
            raise ConfigurationError(
                "api_url: plain http would show the token to the network; use https or set allow_http"
            )
        if self.oidc_token not in ("id_token", "access_token"):
            raise ConfigurationError("oidc_token: id_token or access_token")

    @property
    def license_directory(self) -> Path:
        return self.home / "license"


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def load_settings(**arguments: Any) -> Settings:
    """Settings from all three places; an argument that is None counts as not given. ConfigurationError."""
    home = Path(arguments.pop("home", None) or default_home())
    table = read_table(home / "config.toml")
    values: dict[str, Any] = {"home": home}
    for setting in fields(Settings):
        if setting.name == "home":
            continue
        for source, value in (
            (setting.name, arguments.get(setting.name)),
            (f"CODITECT_{setting.name.upper()}", os.environ.get(f"CODITECT_{setting.name.upper()}")),
            (f"{setting.name} in config.toml", table.get(setting.name)),
        ):
            if value is not None:
                values[setting.name] = _typed(source, value, str(setting.type))
                break
    values["api_url"] = values.get("api_url", Settings.api_url).rstrip("/")
    return Settings(**values)


def _typed(source: str, value: Any, kind: str) -> Any:
    if kind == "float":
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 < number < float("inf"):
            raise ConfigurationError(f"{source}: a positive number of seconds is wanted, not {value!r}")
        return number
    if kind == "bool":
        word = str(value).lower()
        if word not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
            raise ConfigurationError(f"{source}: true or false is wanted, not {value!r}")
        return word in ("1", "true", "yes", "on")
    if not isinstance(value, str | Path):
        raise ConfigurationError(f"{source}: a string is wanted, not {value!r}")
    return str(value)


def read_table(path: Path) -> dict[str, Any]:
    """The `[license]` table of a TOML file, empty if there is none. ConfigurationError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            table = tomllib.loads(text).get("license", {})
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path.name}: {error}") from error
        return table if isinstance(table, dict) else {}
    return read_flat_table(text)


_LINE = re.compile(r"""([A-Za-z0-9_-]+)\s*=\s*(?:"([^"\\]*)"|'([^']*)'|([^\s#"']+))\s*(?:#.*)?\Z""")


def read_flat_table(text: str) -> dict[str, Any]:
    """What Python 3.10 lacks, as far as it is needed: `key = value` lines of `[license]`, other tables skipped."""
    table: dict[str, Any] = {}
    inside = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            inside = line.split("#")[0].strip() == "[license]"
        elif inside and line and not line.startswith("#"):
            match = _LINE.match(line)
            if not match:
                raise ConfigurationError(f"config.toml: line {number} is not `key = value`")
            key, double, single, bare = match.groups()
            table[key] = next(value for value in (double, single, bare) if value is not None)
    return table
