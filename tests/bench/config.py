"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

# MovieLens 1M's size, and the first run's sample.
_ML_1M = "sample:users=6040,items=3706,ratings=1000209"
_SMALL = "sample"


@dataclass(frozen=True)
class BenchConfig:
    """How much is measured; all times are in seconds.

    Attributes:
        data: The ratings, as `marquee train --data` takes them.
        rounds: Rounds of each comparison, of which the median counts.
        sweep_rounds: Rounds of the sweep.
        warm_s: Load before anything is counted.
        seconds: Load that is counted, of each measurement under load.
        unloaded_s: The same with one call in flight.
        in_flight: Calls in flight when throughputs are compared.
        many_in_flight: Calls in flight when replicas are compared.
        levels: Calls in flight of the sweep.
        batch_users: Users of a BatchRecommend, and of single calls in flight beside it.
        large_batch_users: Users of a larger BatchRecommend.
        core_items: Items of the catalogue that the scoring core is measured on.
        core_rounds: Rounds of the scoring core.
        cf_users: Users that collaborative filtering is measured on.
        starts: How often the services are started.
        idle_s: How long they are left alone.
        users: Distinct users who are asked for.
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
    core_items: int = 1_000_000
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
    core_items=20_000,
    core_rounds=1,
    cf_users=50,
    starts=1,
    idle_s=1.5,
    users=200,
)
