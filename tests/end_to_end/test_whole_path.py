"""The whole path with real models and processes: train, publish, serve, promote and fail."""

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
from concurrent.futures import ThreadPoolExecutor
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
from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.settings import DataSettings
from marquee_trainer.commands.train import train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.models.registry import MODELS
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.results import TrainingResult
from threads import thread_count

pytestmark = pytest.mark.alone

# Limits end a test that hangs. A heavily loaded machine must not reach them.
WAIT_S = 120.0
CALL_TIMEOUT_S = 60.0
# Longer than the default, so that answers are also complete on a loaded machine.
GATEWAY_OPTIONS = {"backend-timeout": "10"}
# From the promotion to the first answer, on an idle machine.
SWAP_LIMIT_S = 5.0
SETTINGS = DataSettings(data="sample:users=80,items=60,ratings=2400")


@pytest.fixture(scope="module")
def trained() -> tuple[RatingsDataset, TrainingResult, Callable[[ReleaseStore], Manifest]]:
    """A tiny sample, all models trained on it, and a function that publishes them."""
    dataset, split = load_and_split(SETTINGS)
    result = train_all(dataset, split, SETTINGS.seed, refit=True)
    config = TrainingConfig.for_dataset(dataset, SETTINGS.seed)
    return dataset, result, lambda store: publish_trained(store, dataset, split, result, config)


@pytest.fixture(scope="module")
def store(
    trained: tuple[object, object, Callable[[ReleaseStore], Manifest]],
    tmp_path_factory: pytest.TempPathFactory,
) -> ReleaseStore:
    """A store with a promoted release of those models."""
    created = ReleaseStore(str(tmp_path_factory.mktemp("store")))
    created.promote(trained[2](created).release_id)
    return created


@pytest.fixture(scope="module")
def group(store: ReleaseStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceGroup]:
    """The three services as processes."""
    options = {"poll-interval": "0.2", "cache-dir": str(tmp_path_factory.mktemp("cache"))}
    logs = tmp_path_factory.mktemp("logs")
    with ServiceGroup(store.url, logs, options=options, gateway_options=GATEWAY_OPTIONS) as running:
        yield running


@pytest.fixture
def client(group: ServiceGroup) -> Iterator[Client]:
    """A client of the gateway."""
    with Client(group.gateway.address, timeout=CALL_TIMEOUT_S, wait_for_ready=True) as opened:
        yield opened


def measure_slowdown() -> float:
    """Return how many times longer a busy thread takes than on an idle machine; at least 1."""
    busy_s = 0.2
    start, used = time.perf_counter(), time.thread_time()
    while time.thread_time() - used < busy_s:
        pass
    return max(1.0, (time.perf_counter() - start) / busy_s)


def answer_until(client: Client, condition: Callable[[Recommendations], bool]) -> Recommendations:
    """Request recommendations until an answer meets a condition, and return that answer."""
    limit = time.monotonic() + WAIT_S
    while not condition(answer := client.recommend("7", include_metadata=True)):
        assert time.monotonic() < limit, answer.source
        time.sleep(0.02)
    return answer


def test_served_scores_equal_evaluated_scores(
    trained: tuple[RatingsDataset, TrainingResult, object], client: Client
) -> None:
    """The served stars or affinities of each model equal those that the trainer computes."""
    dataset, result, _ = trained
    user = dataset.user_ids.index("7")
    items = [str(item_id) for item_id in dataset.catalogue.items.ids(range(20))]
    answer_until(client, lambda found: not found.source.degraded)
    for model in result.served_models:
        scores = model.scorer.score(result.served_data.matrix.profiles([user]))[0]
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


def test_rated_items_are_never_recommended(
    trained: tuple[RatingsDataset, TrainingResult, object], client: Client
) -> None:
    """This holds for all users and ratings, in precomputed and computed answers."""
    dataset, result, _ = trained
    answer_until(client, lambda found: not found.source.degraded)
    users = dataset.user_ids.ids(range(len(dataset.user_ids)))
    rated = [
        set(dataset.catalogue.items.ids(dataset.by_user.seen(user))) for user in range(len(users))
    ]
    shown = 0
    for diversity in (0.0, 0.3):
        for answer in client.batch_recommend(users, page_size=10, diversity=diversity):
            page = answer.unwrap()
            assert not {item.item_id for item in page} & rated[answer.index]
            shown += len(page)
    assert shown > 10 * len(users)
    release = client.status().release
    assert release is not None
    assert release.evaluation is not None
    assert release.refitted
    assert release.rating_count == len(dataset) == result.served_data.matrix.rating_count
    assert release.evaluation.training_ratings == result.data.matrix.rating_count


def test_folding_in_the_ratings_of_a_user_gives_that_users_list(
    trained: tuple[RatingsDataset, TrainingResult, object], client: Client
) -> None:
    """Folding in a user's training ratings gives nearly the same list as the trained user."""
    dataset, result, _ = trained
    user = dataset.user_ids.index("7")
    profile = result.served_data.matrix.profiles([user])
    order = np.argsort(-profile.later_counts, kind="stable")
    ids = dataset.catalogue.items.ids(profile.items[order])
    answer_until(client, lambda found: not found.source.degraded)
    known = client.recommend("7")
    stars = profile.ratings[order].tolist()
    visitor = client.recommend(ratings=dict(zip(ids, stars, strict=True)))
    common = {i.item_id for i in known} & {i.item_id for i in visitor}
    assert len(common) >= 0.8 * len(known)


def test_models_use_the_order_of_a_visitors_ratings(
    trained: tuple[RatingsDataset, TrainingResult, object], client: Client
) -> None:
    """The last rating counts as the most recent, and liked items as more recent than ratings."""
    dataset, result, _ = trained
    scorer = next(model.scorer for model in result.served_models if model.name == "slit")
    answer_until(client, lambda found: not found.source.degraded)
    for items in ([5, 1, 9], [9, 5, 1]):
        profile = result.served_data.matrix.profile(
            -1, np.array(items, np.int32), np.array([4, 5, dataset.scale.high], np.float32)
        )
        *rated, liked = dataset.catalogue.items.ids(items)
        answer = client.recommend(
            ratings=dict(zip(rated, (4.0, 5.0), strict=True)), liked_item_ids=[liked], model="slit"
        )
        places = [dataset.catalogue.items.index(item.item_id) for item in answer]
        expected = scorer.score(profile)[0][places]
        assert [item.score for item in answer] == pytest.approx(expected.tolist(), rel=1e-4)


def test_status_reports_every_model_of_the_release(client: Client, store: ReleaseStore) -> None:
    """`status` reports the models and metrics of the manifest, and items have their titles."""
    status = client.status()
    production = store.production()
    assert production is not None
    assert status.release is not None
    assert status.release.release_id == production.release_id
    names = {model.weight.model for model in status.release.models}
    assert names == {make().name for make in MODELS} | set(GATEWAY_MODELS)
    assert status.release.ensemble_metrics["test_mse"] > 0
    assert all(item.title for item in client.recommend("7", include_metadata=True))


def test_a_trained_release_passes_verification(store: ReleaseStore) -> None:
    """The command loads the release and answers requests with it as the servers do."""
    production = store.production()
    assert production is not None
    arguments = ["--store", store.url, "verify", production.release_id]
    command = [sys.executable, "-m", "marquee.cli", "releases", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "precomputed pages agree" in done.stdout


def test_precomputed_pages_equal_computed_ones(
    trained: tuple[RatingsDataset, TrainingResult, object],
    group: ServiceGroup,
    store: ReleaseStore,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    """A gateway with precomputed pages gives every user the same answer as one without."""
    dataset, _, _ = trained
    port = free_port()
    options = {
        "store": store.url,
        "cf-target": group.cf.address,
        "inference-target": group.inference.address,
        "answer-cache-mib": "0",
        **GATEWAY_OPTIONS,
    }
    variants: dict[str, dict[str, str | None]] = {
        "precomputed": {"metrics-port": str(port)},
        "computed": {"no-precomputed-pages": None},
    }
    users = dataset.user_ids.ids(range(len(dataset.user_ids)))
    clients = {}
    with ExitStack() as stack:
        for name, changes in variants.items():
            process = ServiceProcess("gateway", options | changes, tmp_path / f"{name}.log")
            stack.callback(process.stop)
            process.wait_until_serving()
            clients[name] = stack.enter_context(Client(process.address, timeout=CALL_TIMEOUT_S))
            answer_until(clients[name], lambda found: not found.source.degraded)
        batch = clients["precomputed"].batch_recommend(users)
        in_batch = {answer.subject.user_id: answer.unwrap() for answer in batch}
        before = precomputed_answers(port)
        for user in users:
            precomputed, computed = (
                clients[name].recommend(user, include_metadata=True) for name in variants
            )
            assert [item.item_id for item in precomputed] == [item.item_id for item in computed]
            for stored, fresh in zip(precomputed, computed, strict=True):
                assert stored.score == pytest.approx(fresh.score, abs=1e-4)
                assert stored.predicted_stars == pytest.approx(fresh.predicted_stars, abs=2e-4)
                assert (stored.rank, stored.proposed_by) == (fresh.rank, fresh.proposed_by)
                assert (stored.title, stored.genres) == (fresh.title, fresh.genres)
            assert list(in_batch[user]) == [replace(item, metadata=None) for item in precomputed]
            assert precomputed.source.models == computed.source.models
            assert bool(precomputed.next_page_token) == bool(computed.next_page_token)
        assert precomputed_answers(port) - before == len(users)


def precomputed_answers(port: int) -> int:
    """Return how many single answers a gateway has taken from the precomputed pages."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        found = re.search(
            r'marquee_answers_total\{origin="precomputed"\} (\S+)', page.read().decode()
        )
    return int(float(found[1])) if found else 0


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language in the documents on using the client."""
    text = "".join((PROJECT / name).read_text() for name in ("README.md", "clients/README.md"))
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_examples_of_the_documents_work(group: ServiceGroup, client: Client) -> None:
    """Scripts print five recommendations, and doctests print what the document shows.

    Only the address and the default deadline are replaced.
    """
    answer_until(client, lambda found: not found.source.degraded)
    connection = f'Client("{group.gateway.address}", timeout={CALL_TIMEOUT_S}'
    examples = [block.replace('Client("localhost:50051"', connection) for block in blocks("python")]
    scripts = [example for example in examples if ">>>" not in example]
    assert scripts
    for script in scripts:
        run = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT_S,
        )
        assert len(run.stdout.splitlines()) == 5
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    # The blocks share their variables, as in a session that follows the documents from the top.
    names: dict[str, object] = {}
    for number, example in enumerate(examples):
        test = parser.get_doctest(example, names, f"example[{number}]", "README.md", 0)
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.tries > 10
    assert runner.failures == 0


def test_the_commands_of_the_documents_work(group: ServiceGroup, client: Client) -> None:
    """Every command that calls a gateway runs as shown."""
    answer_until(client, lambda found: not found.source.degraded)
    calling = ("recommend", "similar", "search", "predict", "status")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if "marquee " in line]
    ran = [command for command in commands if command and command[0] in calling]
    assert {command[0] for command in ran} == set(calling)
    options = ["--address", group.gateway.address, "--timeout", str(CALL_TIMEOUT_S)]
    for command in ran:
        marquee = [sys.executable, "-m", "marquee.cli", *options]
        run = subprocess.run(
            [*marquee, *command], capture_output=True, text=True, check=True, timeout=WAIT_S
        )
        assert run.stdout, command


def test_a_promotion_is_served_within_five_seconds_and_no_call_fails(
    trained: tuple[object, object, Callable[[ReleaseStore], Manifest]],
    store: ReleaseStore,
    group: ServiceGroup,
    client: Client,
) -> None:
    """While all three processes switch releases, calls succeed and no answer is degraded."""
    answer_until(client, lambda found: not found.source.degraded)
    limit_s = SWAP_LIMIT_S * measure_slowdown()
    answers: list[Recommendations] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def call() -> None:
        with Client(group.gateway.address, timeout=CALL_TIMEOUT_S) as caller:
            while not stop.is_set():
                try:
                    answers.append(caller.recommend("7"))
                except BaseException as error:
                    errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    manifest = trained[2](store)
    store.promote(manifest.release_id)
    promoted = time.monotonic()
    answer_until(client, lambda found: found.source.release_id == manifest.release_id)
    took = time.monotonic() - promoted
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert not any(answer.source.degraded for answer in answers)
    assert took < limit_s


def test_killing_the_inference_service_degrades_answers_until_it_is_back(
    group: ServiceGroup, client: Client, store: ReleaseStore, tmp_path: Path
) -> None:
    """Only the CF service answers, until the inference service is back and answers are complete."""
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


def test_a_frozen_backend_degrades_answers(group: ServiceGroup, client: Client) -> None:
    """A suspended backend does not delay answers beyond the backend timeout."""
    answer_until(client, lambda found: not found.source.degraded)
    group.cf.suspend()
    try:
        answer = answer_until(client, lambda found: found.source.degraded)
        assert len(answer) > 0
    finally:
        group.cf.resume()
    answer_until(client, lambda found: not found.source.degraded)


def test_sigterm_stops_each_service_cleanly(store: ReleaseStore, tmp_path: Path) -> None:
    """On SIGTERM, each service drains and exits with status 0."""
    with ServiceGroup(store.url, tmp_path) as running:
        assert running.stop() == {"cf": 0, "inference": 0, "gateway": 0}


def test_a_burst_of_calls_starts_no_threads(store: ReleaseStore, tmp_path: Path) -> None:
    """Threads that start at the first overload would look like a leak."""
    with ServiceGroup(store.url, tmp_path, gateway_options=GATEWAY_OPTIONS) as group:
        processes = group.cf, group.inference, group.gateway
        with Client(group.gateway.address, timeout=CALL_TIMEOUT_S, wait_for_ready=True) as client:

            def call(number: int) -> None:
                client.recommend(ratings={f"{1 + number % 50}": 1.0 + number % 5})

            call(0)
            before = [thread_count(process.pid) for process in processes]
            with ThreadPoolExecutor(32) as pool:
                list(pool.map(call, range(1_000)))
        assert [thread_count(process.pid) for process in processes] == before
