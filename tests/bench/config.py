"""Size and duration of the measurements."""

from __future__ import annotations

from dataclasses import dataclass

# Generated ratings: as many as MovieLens 1M has, and the default sample.
_ML_1M = "sample:users=6040,items=3706,ratings=1000209"
_SMALL = "sample"


@dataclass(frozen=True)
class BenchConfig:
    """Size and duration of the measurements; all times are in seconds.

    Attributes:
        data: The ratings; the same values as for `marquee train --data`.
        rounds: Rounds of each comparison; the median counts.
        sweep_rounds: Rounds of the concurrency sweep.
        warm_s: Warm-up before a measurement under load, not counted.
        seconds: Duration of a measurement under load.
        unloaded_s: Duration of a measurement with one call in flight.
        in_flight: Calls in flight when throughputs are compared.
        many_in_flight: Calls in flight when one and two gateways are compared.
        levels: Calls in flight at each step of the concurrency sweep.
        batch_users: Users in a BatchRecommend, and the single calls in flight it is compared with.
        large_batch_users: Users in a large BatchRecommend.
        list_users: Users of BatchRecommend that lists without servers are compared with.
        core_items: Items of the catalogue that the scoring core and retrieval are measured on.
        catalogue_items: Sizes of the catalogues that visitors are measured in; the first is the
            reference of the others.
        core_rounds: Rounds for the scoring core and retrieval.
        cf_users: Users that collaborative filtering is measured on.
        starts: How often the services are started to measure the start-up time.
        idle_s: Duration of the measurement of idle CPU.
        users: Distinct users in the requests.
    """

    data: str = _ML_1M
    rounds: int = 5
    sweep_rounds: int = 5
    warm_s: float = 0.3
    seconds: float = 0.8
    unloaded_s: float = 0.6
    in_flight: int = 32
    many_in_flight: int = 128
    levels: tuple[int, ...] = (1, 8, 64, 256, 512)
    batch_users: int = 128
    large_batch_users: int = 1024
    list_users: int = 2000
    core_items: int = 1_000_000
    catalogue_items: tuple[int, ...] = (4_000, 200_000, 1_000_000)
    core_rounds: int = 5
    cf_users: int = 200
    starts: int = 1
    idle_s: float = 3.0
    users: int = 1000


QUICK = BenchConfig(
    data=_SMALL,
    rounds=1,
    sweep_rounds=1,
    warm_s=0.2,
    seconds=0.4,
    unloaded_s=0.3,
    large_batch_users=256,
    list_users=200,
    core_items=20_000,
    catalogue_items=(4_000, 30_000),
    core_rounds=1,
    cf_users=50,
    starts=1,
    idle_s=1.5,
    users=200,
)
