"""The outcome of an experiment, from lists and feedback to `marquee experiments show`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from click.testing import CliRunner, Result

from gateway.feedback.conftest import client_of, start_with_feedback
from marquee import FeedbackEvent, FeedbackKind
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.verdict import Decision
from marquee_services.commands.experiments import experiments as command
from marquee_services.promotion import EXIT_CODES
from toy.experiments import until_ready
from toy.services import Services

USERS_PER_ARM = 60


async def run(services: Services, *arguments: str) -> Result:
    """Run `marquee experiments` on the store of the services."""
    line = ["--store", services.store.url, *arguments]
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def test_an_experiment_from_start_to_promotion(services: Services, feedback_url: str) -> None:
    """Two gateways serve and record, `show` reports the totals, and `promote` ends it."""
    second = await services.publish(1, promote=False)
    gateways = [
        await start_with_feedback(services, feedback_url, experiment_count_interval=0.05)
        for _ in range(2)
    ]
    clients = [client_of(gateway) for gateway in gateways]
    started = await run(
        services,
        *("start", "launch", "--arm", "control=production:50"),
        *("--arm", f"candidate={second.release_id}:50", "--feedback", feedback_url),
    )
    assert started.exit_code == 0, started.output
    again = await run(services, "start", "x", "--arm", "control=production:100")
    assert again.exit_code != 0
    for gateway in gateways:
        await until_ready(gateway, services, "launch")
    experiment = ExperimentStore(services.store).find()

    async def use(number: int) -> None:
        """Get two lists and rate: most users of the candidate like everything, others nothing."""
        user, client = f"n{number}", clients[number % 2]
        arm = experiment.arms[experiment.assign(user)].name
        for _ in range(2):
            page = await client.recommend(user, page_size=3)
            assert page.source.arm == arm
            stars = 5.0 if arm == "candidate" and number % 5 else 2.0
            await client.feedback.record(
                [
                    FeedbackEvent(
                        user_id=user,
                        item_id=page[0].item_id,
                        stars=stars,
                        recommendation_id=page.recommendation_id,
                    ),
                    FeedbackEvent(
                        user_id=user,
                        item_id=page[1].item_id,
                        kind=FeedbackKind.CLICK,
                        recommendation_id=page.recommendation_id,
                    ),
                ]
            )

    users = 2 * USERS_PER_ARM + 40
    for first in range(0, users, 20):
        await asyncio.gather(*(use(number) for number in range(first, first + 20)))
    counters = [gateway.feedback.list_counter for gateway in gateways if gateway.feedback]
    await services.until(lambda: not any(counter.pending for counter in counters))
    shown = await run(services, "show", "--feedback", feedback_url, "--json")
    assert shown.exit_code == 0, shown.output
    report: dict[str, Any] = json.loads(shown.output)
    assert "secret" not in report["experiment"]
    arms = {arm["name"]: arm for arm in report["outcome"]["arms"]}
    for name, arm in arms.items():
        place = [each.name for each in experiment.arms].index(name)
        expected = sum(experiment.assign(f"n{number}") == place for number in range(users))
        assert arm["users"] == expected >= USERS_PER_ARM - 10
        assert arm["lists"] == 2 * expected
        assert arm["ratings"] == arm["clicks"] == 2 * expected
    assert report["outcome"]["uncounted_lists"] == report["outcome"]["foreign_events"] == 0
    assert report["outcome"]["winner"] == "candidate"
    text = (await run(services, "show", "--feedback", feedback_url)).output
    assert "candidate is better than control" in text
    blind = (await run(services, "show")).output
    assert "--feedback" in blind
    status = await clients[0].status()
    assert status.experiment is not None
    assert [arm.unavailable_reason for arm in status.experiment.arms] == ["", ""]
    # The gate cannot load the models of a toy release, so it refuses, and the experiment continues.
    refused = await run(services, "promote", "candidate")
    assert refused.exit_code == EXIT_CODES[Decision.REFUSE]
    assert "was not promoted" in refused.stderr
    assert ExperimentStore(services.store).find().is_running
    promoted = await run(services, "promote", "candidate", "--force", "--by", "somebody")
    assert promoted.exit_code == 0, promoted.output
    change = services.store.pointer.audit(1)[0].change
    assert (change.by, change.forced) == ("somebody", True)
    assert "arm candidate of experiment launch" in change.why
    production = services.store.production()
    assert production is not None
    assert production.release_id == second.release_id
    await services.until(lambda: all(gateway.routing.experiment is None for gateway in gateways))
    for gateway in gateways:
        await services.until_full(gateway)
    listed = await run(services, "list")
    assert "promoted candidate" in listed.output
    page = await clients[0].recommend("n1")
    assert (page.source.experiment, page.source.release_id) == ("", second.release_id)
    for client in clients:
        await client.close()
    for gateway in gateways:
        await gateway.stop(0.5)


async def test_invalid_commands_are_refused_in_one_line(services: Services) -> None:
    """An invalid command exits with status 1 and prints the reason."""
    release = services.first.release_id
    blend = ("--arm", f"control={release}:50", "--arm", f"b={release}@ease:50")
    for arguments, message in (
        (("show",), "no experiment has been started"),
        (("stop",), "no experiment has been started"),
        (("start", "e", *blend[:2]), "2 to 4 arms"),
        (("start", "e", *blend[:2], "--arm", f"b={release}@nothing:50"), "has no model nothing"),
        (("start", "e", *blend[:2], "--arm", "b=r9:50"), "there is no release 'r9'"),
    ):
        result = await run(services, *arguments)
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert (await run(services, "start", "e", *blend)).exit_code == 0
    assert (await run(services, "stop")).exit_code == 0
    again = await run(services, "stop", "e")
    assert "not running" in again.stderr
