"""Typed settings: one frozen dataclass for each command, validated on creation.

The fields are declared with `setting`, which also records the help text and the names from which
`options.py` derives command-line options. This module does not depend on the command line.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from marquee_services.server.addresses import check_listen, is_unix_socket

if TYPE_CHECKING:
    from marquee_core.release.store import ReleaseStore

_T = TypeVar("_T")
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 # nosec B104


def setting(
    default: _T,
    help: str,  # noqa: A002 - click's name for it
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    env: str | None = None,
    alias: str | tuple[str, ...] = (),
    env_alias: str | tuple[str, ...] = (),
) -> _T:
    """Declares a field of a settings class.

    Args:
        default: The default value; its type is the type of the option.
        help: The help text, with the unit of the setting.
        low: Smallest allowed number; None for no lower limit.
        high: Largest allowed number; None for no upper limit.
        choices: The allowed strings; None to allow any.
        env: Environment variable; by default, the command's prefix and the field's name.
        alias: Other names of the flag, without the leading dashes, such as a former name.
        env_alias: Full names of other environment variables, which are read if `env` is not set.
    """
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "env": env,
        "alias": (alias,) if isinstance(alias, str) else alias,
        "env_alias": (env_alias,) if isinstance(env_alias, str) else env_alias,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Base class of settings: validates the limits that `setting` declares.

    Raises:
        ValueError: A field is outside its limits or not among its choices.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.metadata:
                _check(f.name, getattr(self, f.name), f.metadata)


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices, low, high = limits["choices"], limits["low"], limits["high"]
    if choices is not None and value not in choices:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")
    # Written so that NaN fails as well.
    if low is not None and not value >= low:
        raise ValueError(f"{name}: {value} is less than {low}")
    if high is not None and not value <= high:
        raise ValueError(f"{name}: {value} is greater than {high}")


def open_store(
    url: str, trusted_keys: str = "", signing_key: str = "", state_folder: Path | None = None
) -> ReleaseStore:
    """Opens a release store.

    Args:
        url: The folder or URL of the store.
        trusted_keys: PEM file of public keys, one of which must have signed a release; empty to
            accept unsigned releases.
        signing_key: PEM file of the key that signs published releases; empty to not sign them.
        state_folder: Local folder for the change numbers of the signed files that have been read;
            None to keep the numbers in memory only.

    Raises:
        StoreURLError: The URL of the store cannot be used.
        KeyFileError: A key file cannot be used.
        NotADirectoryError: The store is a local path that names a file.
    """
    # Imported here because every command imports this module, which must stay cheap.
    from marquee_core.release.signing import Signer, TrustedKeys
    from marquee_core.release.store import ReleaseStore

    store = ReleaseStore(
        url,
        trusted=TrustedKeys.load(Path(trusted_keys)) if trusted_keys else None,
        signer=Signer.load(Path(signing_key)) if signing_key else None,
        state_folder=state_folder,
    )
    if store.storage.is_local and Path(store.storage.root).is_file():
        raise NotADirectoryError(f"release store: {url} is not a folder")
    return store


@dataclass(frozen=True)
class ServerSettings(Settings):
    """Settings that every server has."""

    store: str = setting("releases-store", "Release store: a folder or a URL.", env="MARQUEE_STORE")
    trusted_keys: str = setting(
        "",
        "PEM file of Ed25519 public keys; only releases signed with one of them are loaded. "
        "Empty: signatures are not checked.",
        env="MARQUEE_TRUSTED_KEYS",
    )
    listen: str = setting(
        "127.0.0.1:0", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    cache_dir: str = setting(
        "~/.cache/marquee/releases",
        "Folder of the server's copies of release files, which it maps into memory. Servers on "
        "the same machine may share it; no one else may write to it.",
        env="MARQUEE_CACHE_DIR",
    )
    scrub_interval: float = setting(
        300.0,
        "Seconds between comparisons of these copies with their SHA-256 digests; 0 turns them off.",
        low=0,
        high=86_400,
    )
    poll_interval: float = setting(
        1.0, "Seconds between polls of the store for the promoted release.", low=0.05, high=3600
    )
    trial: bool = setting(
        True,
        "Load a new release in a separate process first, so that a release that crashes, hangs or "
        "needs too much memory does no harm.",
    )
    trial_timeout: float = setting(
        120.0,
        "Seconds that loading a release on trial may take, without those for which it waits for a "
        "CPU, up to nine times as many.",
        low=0.1,
        high=3600,
    )
    trial_memory_mib: int = setting(
        8192,
        "MiB of memory that a process may use to load a release on trial; 0 for no limit.",
        low=0,
    )
    keep_releases: int = setting(
        2,
        "Number of releases in memory: the promoted one, and others that are still in use.",
        low=2,
        high=16,
    )
    max_calls: int = setting(
        1024,
        "Most calls in progress; further calls are refused with RESOURCE_EXHAUSTED.",
        low=1,
    )
    max_batches: int = setting(
        64,
        "Most batches in progress, which do not count as calls. One caller may have half of them.",
        low=1,
    )
    max_streams: int = setting(
        100,
        "Most calls in progress on one connection; gRPC clients queue further ones.",
        low=1,
    )
    max_ended_streams: int = setting(
        32,
        "Most calls on one connection that the client has ended and the server has not freed yet, "
        "in addition to --max-streams; further ones are refused with UNAVAILABLE. Limits the cost "
        "of a client that keeps starting and resetting calls.",
        low=1,
    )
    max_connections: int = setting(
        8192,
        "Most open connections; further ones are closed immediately. The limit is lower if the "
        "process may open too few files, as some are reserved.",
        low=1,
        high=1_000_000,
    )
    max_connection_idle: float = setting(
        900.0, "Seconds after which a connection without calls is closed.", low=1
    )
    default_deadline: float = setting(
        5.0, "Deadline in seconds of calls whose client set none.", low=0.01
    )
    max_deadline: float = setting(
        600.0, "Longest deadline of a call in seconds; longer ones are shortened.", low=0.01
    )
    receive_timeout: float = setting(
        5.0, "Seconds that a call's request may take to arrive.", low=0.01
    )
    stall_timeout: float = setting(
        10.0, "Seconds for which the caller of a batch may leave an answer unread.", low=0.01
    )
    grace: float = setting(
        10.0, "Seconds that calls in progress have to finish at shutdown.", low=0
    )
    max_connection_age: float = setting(
        300.0,
        "Seconds after which clients are asked to reconnect, so that they find new servers; "
        "varied by 10 % per connection. 0 keeps connections forever.",
        low=0,
        high=86_400,
    )
    max_connection_age_grace: float = setting(
        600.0,
        "Seconds that calls, such as long batches, have to finish on a connection that has reached "
        "its maximum age. It is closed after its last call.",
        low=0,
        high=86_400,
    )
    health_port: int = setting(
        0,
        "Port of a second listener, for health checks without TLS on the host of --listen; 0 opens "
        "none. Kubelets cannot probe over TLS.",
        low=0,
        high=65535,
    )
    reflection: str = setting(
        "auto",
        "Server reflection, which describes the API to tools: auto turns it off if callers are "
        "checked, because anyone who can connect may use it.",
        choices=("auto", "on", "off"),
    )
    tls_certificate: str = setting(
        "", "PEM file of the server's certificate chain; without one, TLS is off."
    )
    tls_key: str = setting("", "PEM file of the server's private key.")
    tls_client_ca: str = setting(
        "",
        "PEM file of certificate authorities; clients must present a certificate signed by one "
        "of them (mTLS).",
    )
    tls_allowed_clients: str = setting(
        "",
        "Identities of the clients that may call, separated by commas: DNS names or URIs (such as "
        "SPIFFE ids), one of which a client's certificate must have as a subject alternative "
        "name. Empty: any certificate signed by --tls-client-ca.",
    )
    metrics_port: int = setting(
        0, "Port of the Prometheus metrics over HTTP; 0 turns them off.", low=0, high=65535
    )
    log_format: str = setting("json", "Format of the log on stderr.", choices=("json", "text"))
    log_level: str = setting(
        "info", "Lowest level that is logged.", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key must be given together")
        self._check_address("listen", check_listen)
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca requires tls_certificate")
        if self.tls_allowed_clients and not self.tls_client_ca:
            raise ValueError("tls_allowed_clients requires tls_client_ca")
        self._check_files("trusted_keys", "tls_certificate", "tls_key", "tls_client_ca")

    def _check_address(self, name: str, check: Callable[[str], None]) -> None:
        """Checks the form of the address that the given field holds.

        Raises:
            ValueError: `check` raises it; the message then begins with the name of the field.
        """
        try:
            check(getattr(self, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _check_files(self, *names: str) -> None:
        """Checks that the files exist that the given fields name.

        Raises:
            ValueError: A file does not exist.
        """
        for name in names:
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise ValueError(f"{name}: file {path!r} does not exist")

    def open_store(self) -> ReleaseStore:
        """Opens the release store.

        Raises:
            StoreURLError: The URL of the store cannot be used.
            KeyFileError: The file of trusted keys cannot be used.
            NotADirectoryError: The store is a local path that names a file.
        """
        return open_store(self.store, self.trusted_keys, state_folder=self.cache)

    @property
    def allowed_clients(self) -> frozenset[str]:
        """The identities in `tls_allowed_clients`."""
        return frozenset(filter(None, map(str.strip, self.tls_allowed_clients.split(","))))

    @property
    def cache(self) -> Path:
        """The folder of the server's copies of release files."""
        return Path(self.cache_dir).expanduser()


def host_of(address: str) -> str:
    """Returns the host of `host:port`; the loopback address for a Unix socket."""
    if is_unix_socket(address):
        return "127.0.0.1"
    return address.rpartition(":")[0] or _ANY_ADDRESS


def is_loopback(address: str) -> bool:
    """Returns whether `host:port` or a Unix socket can be reached only from this machine."""
    host = host_of(address).strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
