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
        data: The ratings, as for `marquee train --data`.
        rounds: Rounds of each comparison, of which the median is reported.
        sweep_rounds: Rounds of the concurrency sweep.
        warm_s: Warm-up before a measurement under load, which is not counted.
        seconds: Duration of a measurement under load.
        unloaded_s: Duration of a measurement with one call in flight.
        in_flight: Calls in flight when throughputs are compared.
        many_in_flight: Calls in flight when one and two gateways are compared.
        levels: Calls in flight at each step of the concurrency sweep.
        batch_users: Users in a BatchRecommend, and single calls in flight to compare it with.
        large_batch_users: Users in a large BatchRecommend.
        list_users: Users in the BatchRecommend that `marquee batch --store` is compared with.
        core_items: Items in the catalogue of the scoring core and retrieval.
        catalogue_items: Catalogue sizes for visitors; the first is the reference.
        large_sizes: Items and users of the scaled releases.
        core_rounds: Rounds for the scoring core and retrieval.
        cf_users: Users for collaborative filtering.
        starts: Number of starts to measure the start-up time.
        idle_s: Duration of the measurement of idle CPU.
        users: Number of distinct users in the requests.
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
    large_sizes: tuple[tuple[int, int], ...] = ((100_000, 100_000), (1_000_000, 1_000_000))
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
    large_sizes=((25_000, 2_000),),
    core_rounds=1,
    cf_users=50,
    starts=1,
    idle_s=1.5,
    users=200,
)
