"""Settings validate themselves, and become options with aliases."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.options import settings_options
from marquee_services.server.settings import ServerSettings, Settings, setting


@dataclass(frozen=True)
class Example(Settings):
    """Settings with a renamed number and a renamed switch."""

    cache_mb: int = setting(
        16,
        "Size of the cache.",
        low=1,
        alias=("memory", "cache"),
        env_alias=("OLD_MEMORY", "OLDER_MEMORY"),
    )
    pages: bool = setting(True, "Whether to use pages.", alias="first-pages")
    share: float = setting(0.5, "A share.", low=0, high=1)
    kind: str = setting("a", "A kind.", choices=("a", "b"))


@dataclass(frozen=True)
class Related(Settings):
    """Settings of which one requires another."""

    key_file: str = setting("", "A file.")
    key: str = setting("", "A key.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_file:
            raise ValueError("key_file and key: no key in '/key_file/key_file.pem'")
        if self.key:
            raise ValueError("key: the key requires key_file")


def invoke(*arguments: str, **environment: str) -> Result:
    """Run a command that prints its settings."""

    @click.command()
    @settings_options(Example, "EXAMPLE")
    def show(settings: Example) -> None:
        click.echo(repr(settings))

    return CliRunner().invoke(show, list(arguments), env=environment)


@pytest.mark.parametrize(
    ("field", "value"),
    [("cache_mb", 0), ("share", 1.5), ("share", -0.1), ("share", float("nan")), ("kind", "c")],
)
def test_a_value_outside_its_limits_is_refused(field: str, value: Any) -> None:
    """The error names the field and the value, both in code and on the command line."""
    with pytest.raises(ValueError, match=f"{field}: .*{value}"):
        Example(**{field: value})
    option = f"--{field.replace('_', '-')}={value}"
    result = invoke(option)
    assert result.exit_code == 2
    assert str(value) in result.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--key-file=x", "--key-file and key: no key in '/key_file/key_file.pem'"),
        ("--key=x", "--key: the key requires --key-file"),
    ],
)
def test_errors_name_the_flags(argument: str, message: str) -> None:
    """On the command line, errors name flags, and the rest of the message stays the same."""

    @click.command()
    @settings_options(Related, "EXAMPLE")
    def show(settings: Related) -> None:
        click.echo(repr(settings))

    assert CliRunner().invoke(show, [argument]).stderr.endswith(f"Error: {message}\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tls_key": "key.pem"}, "tls_certificate and tls_key must be given together"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca requires tls_certificate"),
        ({"tls_certificate": "no.pem", "tls_key": "no.pem"}, "file 'no.pem' does not exist"),
        ({"poll_interval": 0.0}, "poll_interval: 0.0 is less than 0.05"),
        ({"log_level": "loud"}, "log_level: 'loud' is not one of"),
    ],
)
def test_settings_of_servers_are_checked(changes: dict[str, Any], message: str) -> None:
    """Every settings class of a server inherits the checks."""
    for kind in (ServerSettings, GatewaySettings):
        with pytest.raises(ValueError, match=message):
            kind(**changes)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--cache-mb=2"], {}, 2),
        (["--memory=3"], {}, 3),
        (["--cache=4"], {}, 4),
        ([], {"EXAMPLE_CACHE_MB": "5"}, 5),
        ([], {"OLD_MEMORY": "6"}, 6),
        ([], {"OLDER_MEMORY": "7"}, 7),
        ([], {"EXAMPLE_CACHE_MB": "8", "OLD_MEMORY": "9"}, 8),
        (["--memory=1"], {"EXAMPLE_CACHE_MB": "8"}, 1),
    ],
)
def test_former_names_are_still_read(
    arguments: list[str], environment: dict[str, str], expected: int
) -> None:
    """Flags take precedence over the environment, and the new variable over the former ones."""
    assert f"cache_mb={expected}," in invoke(*arguments, **environment).stdout


@pytest.mark.parametrize("flag", ["--no-pages", "--no-first-pages"])
def test_former_names_of_switches_can_be_negated(flag: str) -> None:
    """A switch has a negative form under each of its names."""
    assert "pages=False" in invoke(flag).stdout


def test_settings_do_not_import_the_command_line() -> None:
    """Code that creates settings objects needs no click."""
    code = "import sys, marquee_services.gateway.settings; assert 'click' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("127.0.0.1", "'127.0.0.1' is not host:port or unix:/path"),
        ("::1:50051", "'::1:50051' is not host:port or unix:/path"),
        ("127.0.0.1:", "the port of '127.0.0.1:' is not a number from 0 to 65535"),
        ("127.0.0.1:99999", "the port of '127.0.0.1:99999' is not a number from 0 to 65535"),
        ("localhost:http", "the port of 'localhost:http' is not a number from 0 to 65535"),
        ("unix:", "'unix:' has no path"),
    ],
)
def test_an_address_to_listen_on_needs_a_host_and_a_port(address: str, error: str) -> None:
    """The server would otherwise listen on port 443, or on an arbitrary one."""
    with pytest.raises(ValueError, match=f"^listen: {re.escape(error)}$"):
        ServerSettings(listen=address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:0", "[::1]:50051", ":50051", "unix:/run/x", "unix-abstract:x", "unixes:1"],
)
def test_every_kind_of_address_to_listen_on_is_accepted(address: str) -> None:
    """Port 0 picks a port."""
    assert ServerSettings(listen=address).listen == address


@pytest.mark.parametrize("target", ["cf.example", "cf.example:99999", "cf.example:"])
def test_a_target_needs_a_host_and_a_port(target: str) -> None:
    """The error appears at the start instead of at the first look-up."""
    with pytest.raises(ValueError, match=f"^cf_target: '{target}' is not host:port$"):
        GatewaySettings(cf_target=target)
    with pytest.raises(ValueError, match=r"^inference_target: "):
        GatewaySettings(inference_target=target)


def test_the_cache_folder_is_expanded(tmp_path: Path) -> None:
    """A folder in the home directory may be written with a tilde."""
    assert ServerSettings(cache_dir=str(tmp_path)).cache == tmp_path
    assert ServerSettings().cache.is_absolute()
