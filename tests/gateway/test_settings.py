"""The gateway's settings: former flags and environment variables still work."""

from __future__ import annotations

from collections.abc import Sequence

import click
import pytest
from click.testing import CliRunner

from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.options import settings_options


def parsed(arguments: Sequence[str], environment: dict[str, str]) -> GatewaySettings:
    """Return the settings that a command gets from its arguments and the environment."""
    received: list[GatewaySettings] = []

    @click.command()
    @settings_options(GatewaySettings, "MARQUEE_GATEWAY")
    def command(settings: GatewaySettings) -> None:
        received.append(settings)

    result = CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return received[0]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (
            ["--list-cache-mib", "3", "--answer-cache-mib", "5", "--no-precomputed-pages"],
            {},
        ),
        (["--list-memory", "3", "--answer-memory", "5", "--no-first-pages"], {}),
        (
            [],
            {
                "MARQUEE_GATEWAY_LIST_CACHE_MIB": "3",
                "MARQUEE_GATEWAY_ANSWER_CACHE_MIB": "5",
                "MARQUEE_GATEWAY_PRECOMPUTED_PAGES": "false",
            },
        ),
        (
            [],
            {
                "MARQUEE_GATEWAY_LIST_MEMORY": "3",
                "MARQUEE_GATEWAY_ANSWER_MEMORY": "5",
                "MARQUEE_GATEWAY_FIRST_PAGES": "false",
            },
        ),
    ],
    ids=["flags", "former flags", "variables", "former variables"],
)
def test_former_names_set_the_same_settings(
    arguments: Sequence[str], environment: dict[str, str]
) -> None:
    """Flags and environment variables keep working under their former names."""
    settings = parsed(arguments, environment)
    assert settings.list_cache_mib == 3
    assert settings.answer_cache_mib == 5
    assert not settings.precomputed_pages


@pytest.mark.parametrize(
    ("feedback", "url"),
    [
        ("", ""),
        ("sqlite", "sqlite:////data/releases-store-feedback.sqlite"),
        ("sqlite:///x.sqlite", "sqlite:///x.sqlite"),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_the_feedback_log_is_next_to_the_store_or_at_its_url(feedback: str, url: str) -> None:
    """Without a value, there is no log."""
    assert GatewaySettings(store="/data/releases-store", feedback=feedback).feedback_url == url


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feedback": "mysql://host/db"}, "must be `sqlite`"),
        ({"feedback": "feedback.sqlite"}, "must be `sqlite`"),
        ({"feedback": "sqlite", "store": "s3://bucket/store"}, "store in a local folder"),
        ({"admin_token_file": "/no/such/file"}, "does not exist"),
    ],
)
def test_unusable_feedback_settings_are_refused(changes: dict[str, str], reason: str) -> None:
    """The error is raised at start, before anything listens."""
    with pytest.raises(ValueError, match=reason):
        GatewaySettings(**changes)  # type: ignore[arg-type]  # all of them are strings
