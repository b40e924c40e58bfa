"""The whole path with real models and real processes: train, publish, serve, kill, promote."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from locations import PROJECT
from marquee import Client, Recommendations
from marquee_core.output import Output
from marquee_core.release.ensemble import GATEWAY_MODELS
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_services.processes import ServiceGroup, ServiceProcess
from marquee_trainer.commands.settings import DataSettings
from marquee_trainer.commands.train import load_and_split, publish, train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.models.registry import MODELS
from marquee_trainer.training.train import Trained

pytestmark = pytest.mark.alone

WAIT_S = 60.0
SWAP_LIMIT_S = 5.0
SETTINGS = DataSettings(data="sample:users=80,items=60,ratings=2400")


@pytest.fixture(scope="module")
def trained() -> tuple[RatingsDataset, Trained, Callable[[ReleaseStore], Manifest]]:
    """All models trained on a tiny sample, and what publishes them."""
    dataset, split = load_and_split(SETTINGS)
    result = train_all(dataset, split, SETTINGS.seed)
    return dataset, result, lambda store: publish(store, dataset, split, result, SETTINGS)


@pytest.fixture(scope="module")
def store(
    trained: tuple[object, object, Callable[[ReleaseStore], Manifest]],
    tmp_path_factory: pytest.TempPathFactory,
) -> ReleaseStore:
    """A store with a release of those models in production."""
    made = ReleaseStore(str(tmp_path_factory.mktemp("store")))
    made.promote(trained[2](made).release_id)
    return made


@pytest.fixture(scope="module")
def group(store: ReleaseStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceGroup]:
    """The three services as processes."""
    options = {"poll-interval": "0.2", "cache-dir": str(tmp_path_factory.mktemp("cache"))}
    with ServiceGroup(store.url, tmp_path_factory.mktemp("logs"), options=options) as running:
        yield running


@pytest.fixture
def client(group: ServiceGroup) -> Iterator[Client]:
    """A client that waits for nothing but answers."""
    with Client(group.gateway.address, timeout=10, wait_for_ready=True) as opened:
        yield opened


def answer_until(client: Client, wanted: Callable[[Recommendations], bool]) -> Recommendations:
    """Asks until an answer is as wanted."""
    limit = time.monotonic() + WAIT_S
    while not wanted(answer := client.recommend("7", include_metadata=True)):
        assert time.monotonic() < limit, answer.source
        time.sleep(0.02)
    return answer


def test_all_models_are_served_as_they_were_evaluated(
    trained: tuple[RatingsDataset, Trained, object], client: Client
) -> None:
    """Ratings and affinities over the wire equal the trainer's own, for each model."""
    dataset, result, _ = trained
    user = dataset.user_ids.index("7")
    items = [str(title) for title in dataset.catalogue.items.ids(range(20))]
    answer_until(client, lambda found: not found.source.degraded)
    for model in result.models:
        scores = model.scorer.score(result.data.matrix.profiles([user]))[0]
        if model.scorer.output is Output.AFFINITY:
            best = client.recommend("7", model=model.name)
            places = [dataset.catalogue.items.index(item.item_id) for item in best]
            found = [item.score for item in best]
            assert found == pytest.approx(scores[places].tolist(), abs=2e-4), model.name
            continue
        expected = np.clip(scores[:20], dataset.scale.low, dataset.scale.high)
        answer = client.predict_ratings("7", items, model=model.name)
        stars = [prediction.stars for prediction in answer]
        assert stars == pytest.approx(expected.tolist(), abs=2e-4), model.name


def test_a_known_users_own_ratings_recommend_what_the_user_gets(
    trained: tuple[RatingsDataset, Trained, object], client: Client
) -> None:
    """Fold-in of every model agrees with its trained users: the lists hardly differ."""
    dataset, result, _ = trained
    user = dataset.user_ids.index("7")
    profile = result.data.matrix.profiles([user])
    order = np.argsort(-profile.later, kind="stable")
    ids = dataset.catalogue.items.ids(profile.items[order])
    answer_until(client, lambda found: not found.source.degraded)
    known = client.recommend("7")
    stars = profile.ratings[order].tolist()
    visitor = client.recommend(ratings=dict(zip(ids, stars, strict=True)))
    common = {i.item_id for i in known} & {i.item_id for i in visitor}
    assert len(common) >= 0.8 * len(known)


def test_the_order_of_a_visitors_ratings_tells_which_are_late(
    trained: tuple[RatingsDataset, Trained, object], client: Client
) -> None:
    """From the client to the model, the last of the ratings is the latest, a like later still."""
    dataset, result, _ = trained
    scorer = next(model.scorer for model in result.models if model.name == "slit")
    answer_until(client, lambda found: not found.source.degraded)
    for items in ([5, 1, 9], [9, 5, 1]):
        profile = result.data.matrix.profile(
            -1, np.array(items, np.int32), np.array([4, 5, dataset.scale.high], np.float32)
        )
        *rated, liked = dataset.catalogue.items.ids(items)
        answer = client.recommend(
            ratings=dict(zip(rated, (4.0, 5.0), strict=True)), liked_item_ids=[liked], model="slit"
        )
        places = [dataset.catalogue.items.index(item.item_id) for item in answer]
        expected = scorer.score(profile)[0][places]
        assert [item.score for item in answer] == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_answer_names_every_model_of_the_release(client: Client, store: ReleaseStore) -> None:
    """Status and metrics come from the manifest; titles from the catalogue."""
    status = client.status()
    production = store.production()
    assert production is not None
    assert status.release is not None
    assert status.release.release_id == production.release_id
    names = {model.weight.model for model in status.release.models}
    assert names == {make().name for make in MODELS} | set(GATEWAY_MODELS)
    assert status.release.ensemble_metrics["test_mse"] > 0
    assert all(item.title for item in client.recommend("7", include_metadata=True))


def test_first_pages_of_the_release_are_what_would_be_computed(
    trained: tuple[RatingsDataset, Trained, object],
    group: ServiceGroup,
    store: ReleaseStore,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    """Item by item, for every user: one gateway answers with nothing else, another never does."""
    dataset, _, _ = trained
    port = free_port()
    options = {
        "store": store.url,
        "cf-target": group.cf.address,
        "inference-target": group.inference.address,
        "answer-memory": "0",
    }
    own: dict[str, dict[str, str | None]] = {
        "ready": {"metrics-port": str(port)},
        "computing": {"no-first-pages": None},
    }
    users = dataset.user_ids.ids(range(len(dataset.user_ids)))
    clients = {}
    with ExitStack() as stack:
        for name, changes in own.items():
            process = ServiceProcess("gateway", options | changes, tmp_path / f"{name}.log")
            stack.callback(process.stop)
            process.wait_until_serving()
            clients[name] = stack.enter_context(Client(process.address, timeout=10))
            answer_until(clients[name], lambda found: not found.source.degraded)
        batch = clients["ready"].batch_recommend(users)
        together = {answer.subject.user_id: answer.unwrap() for answer in batch}
        before = answers_of_the_release(port)
        for user in users:
            ready, computed = (clients[name].recommend(user, include_metadata=True) for name in own)
            assert [item.item_id for item in ready] == [item.item_id for item in computed]
            for ours, theirs in zip(ready, computed, strict=True):
                assert ours.score == pytest.approx(theirs.score, abs=1e-4)
                assert ours.predicted_stars == pytest.approx(theirs.predicted_stars, abs=2e-4)
                assert (ours.rank, ours.proposed_by) == (theirs.rank, theirs.proposed_by)
                assert (ours.title, ours.genres) == (theirs.title, theirs.genres)
            assert list(together[user]) == [replace(item, metadata=None) for item in ready]
            assert ready.source.models == computed.source.models
            assert bool(ready.next_page_token) == bool(computed.next_page_token)
        assert answers_of_the_release(port) - before == len(users)


def answers_of_the_release(port: int) -> int:
    """How many answers a gateway has given from its release's first pages."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        found = re.search(r'marquee_answers_total\{origin="release"\} (\S+)', page.read().decode())
    return int(float(found[1])) if found else 0


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    text = (PROJECT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readmes_python_examples_say_what_comes_out(
    group: ServiceGroup, client: Client
) -> None:
    """Run as they stand, but for the address; the first is a script, the others doctests."""
    answer_until(client, lambda found: not found.source.degraded)
    script, *examples = [
        block.replace("localhost:50051", group.gateway.address) for block in blocks("python")
    ]
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert len(run.stdout.splitlines()) == 5
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for number, example in enumerate(examples):
        runner.run(parser.get_doctest(example, {}, f"README[{number}]", "README.md", 0))
    assert runner.tries > 10
    assert runner.failures == 0


def test_the_readmes_commands_work(group: ServiceGroup, client: Client) -> None:
    """Those that ask a gateway, as they stand."""
    answer_until(client, lambda found: not found.source.degraded)
    asking = ("recommend", "similar", "search", "predict", "status")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if "marquee " in line]
    ran = [command for command in commands if command and command[0] in asking]
    assert {command[0] for command in ran} == set(asking)
    for command in ran:
        marquee = [sys.executable, "-m", "marquee.cli", "--address", group.gateway.address]
        run = subprocess.run(
            [*marquee, *command], capture_output=True, text=True, check=True, timeout=60
        )
        assert run.stdout, command


def test_a_promotion_is_served_within_five_seconds_and_no_call_fails(
    trained: tuple[object, object, Callable[[ReleaseStore], Manifest]],
    store: ReleaseStore,
    group: ServiceGroup,
    client: Client,
) -> None:
    """Calls go on while all three processes swap; each answer is full and of one release."""
    answer_until(client, lambda found: not found.source.degraded)
    answers: list[Recommendations] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def call() -> None:
        with Client(group.gateway.address, timeout=5) as own:
            while not stop.is_set():
                try:
                    answers.append(own.recommend("7"))
                except BaseException as error:
                    errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    manifest = trained[2](store)
    store.promote(manifest.release_id)
    promoted = time.monotonic()
    answer_until(client, lambda found: found.source.release_id == manifest.release_id)
    took = time.monotonic() - promoted
    stop.set()
    for caller in callers:
        caller.join()
    assert not errors
    assert not any(answer.source.degraded for answer in answers)
    assert took < SWAP_LIMIT_S


def test_killing_the_inference_service_degrades_until_it_is_back(
    group: ServiceGroup, client: Client, store: ReleaseStore, tmp_path: Path
) -> None:
    """The next answers come from CF, and are full again once the process is."""
    answer_until(client, lambda found: not found.source.degraded)
    address = group.inference.address
    group.inference.kill()
    answer = client.recommend("7")
    assert answer.source.degraded
    assert len(answer) > 0
    models = {weight.model for weight in answer.source.models}
    assert "item_cf" in models or "ease" in models
    assert not models & {"mf", "deep_mf", "residual_mf", "autorec", "user_autorec"}
    group.replace(ServiceProcess("inference", {"store": store.url}, tmp_path / "log", address))
    answer_until(client, lambda found: not found.source.degraded)


def test_a_frozen_backend_costs_little_and_degrades(group: ServiceGroup, client: Client) -> None:
    """A stopped process holds nobody up for longer than its timeout."""
    answer_until(client, lambda found: not found.source.degraded)
    group.cf.freeze()
    try:
        answer = answer_until(client, lambda found: found.source.degraded)
        assert len(answer) > 0
    finally:
        group.cf.thaw()
    answer_until(client, lambda found: not found.source.degraded)


def test_sigterm_drains_and_exits_cleanly(store: ReleaseStore, tmp_path: Path) -> None:
    """Each service ends with status 0."""
    with ServiceGroup(store.url, tmp_path) as running:
        assert running.stop() == {"cf": 0, "inference": 0, "gateway": 0}
