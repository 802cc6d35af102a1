"""The model of what many machines cost: its limits, examples by hand, and a fit that finds what it was made of."""

from __future__ import annotations

import math

import pytest

from plusx.bench.scaling import (
    NOTHING,
    Cluster,
    Collection,
    Link,
    Losses,
    Machine,
    Step,
    Store,
    Work,
    efficiency,
    fitted,
    fitted_link,
    gathered,
    ring,
    scored,
    step,
    tree,
)

LINK = Link(delay=1e-3, bandwidth=1e6)
WORK = Work(0.01, 0.1, gradients=1e6, last=1e5, backward=0.5, layers=10, gathered=1e3, summed=500.0)


def machines(count: int, link: Link, *, trees: bool = False) -> Cluster:
    return Cluster(count, 1, NOTHING, link, trees)


def test_one_worker_takes_what_its_computing_takes() -> None:
    assert step(WORK, 20, machines(1, LINK)).seconds == pytest.approx(0.1 + 20 * 0.01)


def test_without_delay_and_with_any_bandwidth_many_are_as_fast_as_one() -> None:
    alone = step(WORK, 20, machines(1, NOTHING)).seconds
    together = step(WORK, 20, Cluster(64, 8, NOTHING, NOTHING)).seconds
    assert together == alone
    assert efficiency(alone, 20, together, 20) == 1.0


def test_a_ring_sends_a_share_of_the_bytes_in_two_messages_for_each_other_worker() -> None:
    assert ring(4000, 4, LINK) == pytest.approx(2 * 3 * (1e-3 + 1000 / 1e6))
    assert ring(4000, 1, LINK) == 0.0
    assert gathered(1000, 4, LINK) == pytest.approx(3 * (1e-3 + 1000 / 1e6))


def test_a_tree_waits_for_fewer_delays_and_small_messages_go_by_it() -> None:
    assert tree(0, 64, LINK) == pytest.approx(12e-3)
    assert tree(0, 1, LINK) == 0.0
    assert machines(64, LINK, trees=True).all_reduce(8) < machines(64, LINK).all_reduce(8)
    large = 1e9
    assert machines(64, LINK, trees=True).all_reduce(large) == machines(64, LINK).all_reduce(large)


def test_within_and_between_machines_an_all_reduce_takes_both_rings() -> None:
    outer = Link(1e-2, 1e5)
    assert Cluster(4, 8, LINK, outer).all_reduce(1e5) == pytest.approx(ring(1e5, 8, LINK) + ring(1e5, 4, outer))
    assert Cluster(4, 8, LINK, outer).workers == 32


def test_what_all_gather_goes_around_one_ring_from_machine_to_machine() -> None:
    outer = Link(1e-2, 1e5)
    delays = 3 * 1e-2 + 28 * 1e-3
    assert Cluster(4, 8, LINK, outer).all_gather(100) == pytest.approx(delays + 31 * 100 / 1e5)
    assert Cluster(4, 8, LINK, outer, trees=True).all_gather(100) == pytest.approx(delays + 31 * 100 / 1e5)
    assert Cluster(1, 8, LINK, NOTHING).all_gather(100) == pytest.approx(gathered(100, 8, LINK))
    assert Cluster(8, 1, NOTHING, LINK).all_gather(100) == pytest.approx(gathered(100, 8, LINK))


def test_nothing_to_say_and_nobody_to_say_it_to_cost_nothing() -> None:
    alone = Cluster(1, 1, LINK, LINK, base=1.0)
    assert (alone.all_reduce(100), alone.all_gather(100), machines(4, LINK).all_gather(0)) == (0.0, 0.0, 0.0)
    assert Cluster(2, 1, NOTHING, LINK, base=1.0).all_reduce(0) == pytest.approx(1.0 + 2e-3)


def test_a_longer_delay_is_never_faster() -> None:
    times = [step(WORK, 20, machines(4, Link(delay, 1e7))).seconds for delay in (0.0, 1e-4, 1e-3, 1e-2, 1e-1)]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


def test_gradients_hide_behind_the_backward_pass_but_for_the_last_of_them() -> None:
    fast = step(WORK, 100, machines(2, Link(0.0, 1e9)))  # 1 ms for all, 0.1 ms for the last
    assert fast.gradients == pytest.approx(1e5 / 1e9)
    slow = step(WORK, 100, machines(2, Link(0.0, 1e6)))  # 1 s for all; 1.1 s of computing, half of it backward
    assert slow.gradients == pytest.approx(1.0 - 0.55)


def test_norms_over_all_wait_for_two_messages_a_layer() -> None:
    found = step(WORK, 20, machines(2, Link(1e-3, math.inf)))
    assert found.norms == pytest.approx(10 * (1e-3 + 2e-3))
    assert found.counting == pytest.approx(2e-3)


def test_reading_hides_behind_a_step_or_a_step_behind_reading() -> None:
    assert step(WORK, 20, machines(1, LINK), reading=0.2).seconds == pytest.approx(0.3)
    late = step(WORK, 20, machines(1, LINK), reading=0.5)
    assert (late.seconds, late.limit) == (0.5, "reading")


def test_the_limit_is_what_costs_most_beside_computing() -> None:
    assert Step(0.0, 1.0, 0.3, 0.2, 0.1).limit == "gradients"
    assert Step(0.0, 1.0, 0.1, 0.2, 0.1).limit == "norms"


def test_a_small_share_takes_no_less_than_the_smallest_step() -> None:
    work = Work(per_photo=0.01, floor=0.5)
    assert [work.seconds(photos) for photos in (1, 50, 100)] == [0.5, 0.5, 1.0]
    assert efficiency(1.0, 100, 0.5, 10) == pytest.approx(0.2)


def test_processes_that_share_a_core_compute_and_send_so_much_slower() -> None:
    assert step(WORK, 20, machines(1, LINK), crowd=2.0).seconds == pytest.approx(0.6)
    assert LINK.slower(2.0) == Link(2e-3, 5e5)
    assert LINK.behind(Link(1e-2, 1e5)) == Link(1.1e-2, 1e5)


def test_checkpoints_as_often_as_young_says_lose_least() -> None:
    losses = Losses(write=10, failures=0.01, restart=60)
    best = losses.best_interval(64)
    assert best == pytest.approx(math.sqrt(2 * 10 * 3600 / 0.64))
    assert losses.share(64, best) < min(losses.share(64, best * 1.2), losses.share(64, best / 1.2))
    assert losses.seconds(1000, 64, best) == pytest.approx(1000 * (1 + losses.share(64, best)))


def test_where_nothing_fails_a_checkpoint_costs_its_writing() -> None:
    losses = Losses(write=1, start=30)
    assert losses.best_interval(8) == math.inf
    assert losses.seconds(1000, 8, 100) == pytest.approx(30 + 1000 + 10)


def test_scoring_is_as_fast_as_its_narrowest_part() -> None:
    collection = Collection(photos=1e6, size=1e5, in_shard=1e4, row=100)
    machine, store = Machine(computed=5000, decoded=1000, network=1e9), Store(100, 1e12, listing=0.5)
    found = scored(collection, machine, 4, store, start=10)
    assert found.limit == "decoding"
    assert found.rates["network of the machines"] == pytest.approx(4e4)
    assert found.rates["requests to the store"] == pytest.approx(100 * 1e4 / 2)
    assert found.hours * 3600 == pytest.approx(10 + 0.5 + 1e6 / 4000 + 0.5 * 1e4 / 1000)
    assert found.machine_hours == pytest.approx(4 * found.hours)


def test_no_more_machines_work_than_there_are_shards() -> None:
    store, machine = Store(1e9, math.inf), Machine(1000, 1000, math.inf)
    few = Collection(photos=2e4, size=1.0, in_shard=1e4, row=1.0)
    assert scored(few, machine, 64, store).rates["computing"] == 2000


def test_photos_that_are_objects_of_their_own_are_held_up_by_requests() -> None:
    found = scored(Collection(1e9, 1e5, 1, 100), Machine(1e6, 1e6, 1e12), 8, Store(5500, math.inf))
    assert found.limit == "requests to the store"


def test_a_fit_finds_the_link_that_made_the_messages() -> None:
    rows = [(n, n * size, n * LINK.seconds(size)) for n in (1, 2, 14) for size in (10, 1e3, 1e5, 1e7)]
    found = fitted_link(rows)
    assert found.delay == pytest.approx(LINK.delay)
    assert found.bandwidth == pytest.approx(LINK.bandwidth)


def test_a_fit_gives_nothing_negative() -> None:
    assert fitted([(1, 1, 1.0), (1, 2, 0.9), (1, 3, 0.8)])[1] == 0.0
    assert fitted([(1, 1, 0.5), (1, 2, 1.5), (1, 3, 2.5)])[0] == 0.0
    assert fitted_link([(1, 1, 1.0), (1, 2, 0.9)]).bandwidth == math.inf
