"""Starts the gateway: puts its parts together, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from marquee.v1 import (
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
)
from marquee_core.release.copies import ReleaseCopies
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.gateway.access import access_control
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.page_scorer import PageScorer
from marquee_services.gateway.answering.predict import Predictor
from marquee_services.gateway.answering.reasons import Explainer
from marquee_services.gateway.answering.recommend import Recommender
from marquee_services.gateway.answering.similar import SimilarItemsFinder
from marquee_services.gateway.answering.status import StatusReporter, experiment_status
from marquee_services.gateway.answering.stored_answers import StoredAnswers
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.backends.monitor import BackendMonitor
from marquee_services.gateway.batch_budget import BatchBudget
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.counting_lru import CountingLRU, cache_metrics
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.feedback_disabled_servicer import DisabledFeedbackServicer
from marquee_services.gateway.gateway import Gateway
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.releases.gate_watch import GateWatch
from marquee_services.gateway.releases.release import GatewayRelease, load_gateway_release
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.request_limits import REQUEST_LIMITS
from marquee_services.gateway.servicer import RecommenderServicer
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from marquee_services.server.admission.queue_metrics import watch_limit
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.identity.reloading import Reloader
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.poll_log import PollLog
from marquee_services.server.releases.trial import ReleaseTrial
from marquee_services.server.releases.trial_process import TrialLoader
from marquee_services.server.runtime import (
    create_server,
    methods_of,
    until_signalled,
)
from marquee_services.server.settings import is_loopback
from marquee_services.server.state_metrics import certificate_metrics, release_metrics
from marquee_services.server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from marquee_services.gateway.feedback_runtime import FeedbackRuntime

_DESCRIPTOR = recommender_service_pb2.DESCRIPTOR.services_by_name["RecommenderService"]
_FEEDBACK_DESCRIPTOR = feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"]
SERVICE, FEEDBACK_SERVICE = _DESCRIPTOR.full_name, _FEEDBACK_DESCRIPTOR.full_name
_MIB = 1024 * 1024


def new_monitor() -> BackendMonitor:
    """Creates the metrics of a gateway: of its own calls, and of its calls to backends."""
    return BackendMonitor(Metrics(methods_of(_DESCRIPTOR, _FEEDBACK_DESCRIPTOR)))


async def start(
    settings: GatewaySettings,
    backends: Sequence[AnyBackend] | None = None,
    store: ReleaseStore | None = None,
    trial: ReleaseTrial | None = None,
    with_experiments: bool = True,
    monitor: BackendMonitor | None = None,
    local_followers: Sequence[ReleaseFollower[Any]] = (),
) -> Gateway:
    """Starts a gateway. Its health status is NOT_SERVING until a release is in service.

    Args:
        settings: The gateway's settings.
        backends: The CF and the inference service; None to connect to those of the settings.
        store: The release store; None to open the one of the settings.
        trial: Loads releases on trial first; None to load them without a trial.
        with_experiments: Whether to follow the experiments in the store.
        monitor: The monitor of the backends; None to create one.
        local_followers: The followers of backends in this process, for the metrics.

    Raises:
        CertificateError: A certificate cannot be used.
        OSError: The gateway cannot listen on the address, or a token or key file cannot be used.
        StoreURLError: The URL of the store cannot be used.
        ValueError: The URL of the feedback log cannot be used.
    """
    store = store or settings.open_store()
    certificates = None
    if settings.backend_ca:
        certificates = Certificates(
            "backends", settings.backend_cert, settings.backend_key, settings.backend_ca
        )
    reloader = Reloader()
    if certificates is not None:
        reloader.add(certificates)
    access = access_control(settings, reloader)
    monitor = monitor or new_monitor()
    metrics = monitor.metrics
    if backends is None:
        backends = _connect(settings, certificates, monitor)
    monitor.watch(backends)
    follower = _follower(settings, store, trial, with_experiments)
    releases = Releases(follower, backends)
    router = Router({backend.name: backend for backend in backends})
    answer_cache, list_cache = _caches(settings, metrics)
    page_scorer = PageScorer(router, list_cache, settings.dense_limit, settings.candidates)
    answer_metrics = AnswerMetrics(metrics)
    fresh = FreshFeedback(settings.feedback_memory_mib * _MIB)
    metrics.read_on_scrape(
        release_metrics((follower, *local_followers), releases.serving_publication)
    )
    gate_watch = GateWatch(store)
    metrics.read_on_scrape(gate_watch.metrics)
    if certificates is not None:
        metrics.read_on_scrape(certificate_metrics((certificates,)))
    feedback = _start_feedback(settings, releases, fresh, metrics)
    computing = _computing_limit(settings, metrics)
    batch_budget = BatchBudget(
        settings.batch_parallel, lambda seconds: bound.calls.had_single_within(seconds)
    )
    counter = None if feedback is None else feedback.list_counter
    if feedback is not None:
        releases.has_feedback_for = feedback.has_read_for
    routing = Routing(
        releases,
        follower,
        backends,
        metrics.registry,
        None if counter is None else counter.count,
    )
    lookups = Lookups(releases, settings.max_searches)
    servicer = RecommenderServicer(
        stored_answers=StoredAnswers(
            routing,
            router,
            answer_cache,
            settings.precomputed_pages,
            settings.dense_limit,
            settings.candidates,
            fresh,
            answer_metrics,
        ),
        recommender=Recommender(
            releases, routing, page_scorer, Explainer(router), answer_cache, fresh, answer_metrics
        ),
        predictor=Predictor(routing, router, fresh),
        similar_items=SimilarItemsFinder(releases, router, settings.dense_limit),
        lookups=lookups,
        status=StatusReporter(
            releases,
            backends,
            lambda: None if feedback is None else feedback.status(),
            lambda: experiment_status(routing, follower, counter),
            shows_addresses_to_all=is_loopback(settings.listen) and not settings.checks_tokens,
        ),
        settings=settings,
        metrics=metrics,
        computing=computing,
        batch_budget=batch_budget,
    )
    feedback_servicer = DisabledFeedbackServicer() if feedback is None else feedback.servicer

    def add_servicers(server: grpc.aio.Server) -> None:
        recommender_service_pb2_grpc.add_RecommenderServiceServicer_to_server(servicer, server)
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(feedback_servicer, server)

    try:
        bound = await create_server(
            settings,
            (SERVICE, FEEDBACK_SERVICE),
            add_servicers,
            metrics,
            settings.max_request_bytes,
            access,
            reloader,
            request_limits=REQUEST_LIMITS,
            exempt=frozenset({"GetStatus"}),
            early_admission=servicer.early_admission,
            guarded=settings.connection_guard,
            shortcuts={"Recommend": servicer.recommend_again},
        )
    except BaseException:
        if feedback is not None:
            await feedback.stop()
        raise
    tasks = [asyncio.create_task(backend.watch()) for backend in backends]
    tasks.append(asyncio.create_task(follower.follow()))
    tasks.append(asyncio.create_task(gate_watch.follow()))
    gateway = Gateway(
        bound,
        follower,
        backends,
        releases,
        routing,
        metrics,
        fresh,
        feedback,
        batch_budget,
        computing,
        lookups,
        tasks,
    )
    gateway.run_in_background(
        gateway.update_release_in_service(
            store.storage, min(settings.probe_interval, settings.poll_interval) / 2
        )
    )
    return gateway


def _connect(
    settings: GatewaySettings, certificates: Certificates | None, monitor: BackendMonitor
) -> tuple[Backend, ...]:
    return (
        Backend(CF, settings.cf_target, settings, certificates, monitor),
        Backend(INFERENCE, settings.inference_target, settings, certificates, monitor),
    )


def _follower(
    settings: GatewaySettings,
    store: ReleaseStore,
    trial: ReleaseTrial | None,
    with_experiments: bool,
) -> ReleaseFollower[GatewayRelease]:
    return ReleaseFollower(
        store,
        lambda release_id: load_gateway_release(store, release_id, settings.cache),
        settings.poll_interval,
        settings.keep_releases,
        copies=ReleaseCopies(store, settings.cache),
        scrub_interval=settings.scrub_interval,
        trial=trial,
        with_experiments=with_experiments,
        poll_log=PollLog(GATEWAY),
        load_tried=lambda release_id: load_gateway_release(
            store, release_id, settings.cache, was_tried=True
        ),
    )


def _caches(settings: GatewaySettings, metrics: Metrics) -> tuple[AnswerCache, ListCache]:
    answer_cache = AnswerCache(settings.answer_cache_mib * _MIB)
    list_cache = ListCache(settings.list_cache_mib * _MIB)
    caches: dict[str, CountingLRU[Any, Any]] = {
        "answers": answer_cache.entries,
        "lists": list_cache.entries,
    }
    metrics.read_on_scrape(lambda: cache_metrics(caches))
    return answer_cache, list_cache


def _computing_limit(settings: GatewaySettings, metrics: Metrics) -> AdaptiveLimit:
    computing = AdaptiveLimit(
        settings.min_computing,
        settings.max_computing,
        settings.latency_tolerance,
        settings.unhurried_latency,
        settings.min_in_flight,
    )
    watch_limit(metrics, computing)
    return computing


def _start_feedback(
    settings: GatewaySettings, releases: Releases, fresh: FreshFeedback, metrics: Metrics
) -> FeedbackRuntime | None:
    if not settings.feedback:
        return None
    # Imported here because it requires the extra `feedback`, and tens of megabytes of memory.
    from marquee_services.gateway.feedback_runtime import FeedbackRuntime

    return FeedbackRuntime(settings, releases, fresh, metrics)


def trial_loaders(settings: GatewaySettings) -> Mapping[str, TrialLoader]:
    """Returns the function that loads the gateway's part of a release on trial, by service."""
    return {GATEWAY: trial_loader(settings)}


def trial_loader(settings: GatewaySettings) -> TrialLoader:
    """Returns a function that loads the gateway's part of a release on trial."""
    return lambda release_id: load_gateway_release(
        settings.open_store(), release_id, settings.cache
    )


async def serve(settings: GatewaySettings, fork_server: ForkServer | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The gateway's settings.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.
    """
    trial = None if fork_server is None else ReleaseTrial(GATEWAY, settings, fork_server)
    gateway = await start(settings, trial=trial)
    try:
        await until_signalled(gateway.bound.reloader.reload)
    finally:
        await gateway.stop(settings.grace)
