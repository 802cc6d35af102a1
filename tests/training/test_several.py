"""Several processes compute the step of one: norms, gradients, curves, and stops (T10). Two starts, of 2 and of 3.

What is compared with one process is computed beside it, alone, in the first of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import several
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_training import Batch as Plain
from toy_training import Network, Photos, network, settings

from plusx import durable
from plusx.data import mixing
from plusx.data.loader import Batch, deal
from plusx.errors import Interrupted, RunError, UsageError
from plusx.training import checkpoint
from plusx.training.batch_norm import SynchronisedBatchNorm2d, synchronise
from plusx.training.events import Event, StepDone
from plusx.training.loop import Training, fit
from plusx.training.paths import Paths
from plusx.training.settings import Settings
from plusx.training.step import State, compute_gradients, train_step
from plusx.training.world import ALONE, World, joined

CLOSE = 2e-6  # of gradients and statistics in float32, as a share of the largest
CURVE = 1e-4  # of the losses of twelve steps, as a share
QUIET = {"learning_rate": 0.01, "clip_norm": None}  # a rate at which rounding stays small


class Shared:
    """The photos of the toy training as one of several processes has them; mixed where that is asked for."""

    def __init__(self, world: World, batch_size: int = 8, *, mixes: bool = False) -> None:
        self.world, self.photos, self.mixes = world, Photos(batch_size), mixes
        self.steps_per_epoch = self.photos.steps_per_epoch

    def batch(self, step: int) -> Batch:
        return self.dealt(self.photos.batch(step), step)

    def dealt(self, whole: Plain, step: int) -> Batch:
        shares = deal(len(whole.indices), self.world.size)
        ours = torch.from_numpy(shares[self.world.rank])
        images, targets = whole.images[ours], whole.targets[ours]
        if self.mixes and (mix := mixing.draw(0.4, 1.0, 3, step)):
            images, targets = mixing.apply(images.float(), targets, mix, 3)
        return Batch(images, targets, whole.indices, tuple(map(len, shares)))

    def name(self, index: int) -> str:
        return self.photos.name(index)


def how(total: int = 12, **others: Any) -> Settings:
    return settings(total, **(QUIET | others))


def model_without_dropout() -> nn.Module:
    found = network()
    found.drop.p = 0.0
    return found


def state(world: World, wanted: Settings) -> State:
    return State.fresh(model_without_dropout(), wanted, world=world)


def gradients(world: World, step: int, wanted: Settings, **photos: Any) -> tuple[list[Tensor], float, float]:
    """The gradients of the first model in the batch of `step`, its loss, and a statistic that its norms have now."""
    one = state(world, wanted)
    result = compute_gradients(one, Shared(world, **photos).batch(step), wanted)
    statistics = [value for value in one.model.state_dict().values() if value.is_floating_point()]
    found = [p.grad for p in one.model.parameters() if p.grad is not None]
    return [*found, *statistics], result.loss, result.accuracy


def apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, as a share of the largest number of its tensor."""
    assert len(ours) == len(theirs)
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs)


CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "a batch": (0, {}, {}),
    "the smaller last batch": (3, {}, {}),
    "in parts": (1, {"accumulate": 2}, {}),
    "in parts, the smaller last batch": (3, {"accumulate": 4}, {"batch_size": 9}),
    "mixed": (2, {}, {"mixes": True}),
    "an odd batch": (0, {}, {"batch_size": 7}),
    "fewer photos than processes have pairs": (0, {}, {"batch_size": 2}),
}


def _steps(world: World) -> dict[str, float]:
    """How far gradients, statistics, loss and accuracy are from those of one process, by case."""
    found = {}
    for name, (step, wanted, photos) in CASES.items():
        plan = how(accumulate=1, **{}) if not wanted else how(**wanted)
        theirs, loss, right = gradients(ALONE, step, plan, **photos)
        ours, our_loss, our_right = gradients(world, step, plan, **photos)
        found[name] = max(apart(ours, theirs), abs(our_loss - loss) / loss, abs(our_right - right))
    return found


def _norms(world: World) -> dict[str, float]:
    """How far a synchronised norm is from `nn.BatchNorm2d` on the joined batch; shares of 1, 2 and 3 photos."""
    torch.manual_seed(5)
    joined_batch = 100 + torch.randn(sum(range(1, world.size + 1)), 4, 3, 2)  # a mean that squares would drown in
    slope = torch.randn_like(joined_batch)
    first = world.rank * (world.rank + 1) // 2
    ours = slice(first, first + world.rank + 1)
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        reference, norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        for one in (reference, norm):
            nn.init.uniform_(one.weight, generator=torch.Generator().manual_seed(1))
        (synchronised,) = synchronise(norm, world)
        expected, gradient = _through(reference, joined_batch.to(dtype), slope)
        images = joined_batch[ours].to(dtype).to(memory_format=torch.channels_last)
        answer, ours_gradient = _through(synchronised, images, slope[ours])
        assert answer.dtype == dtype
        assert answer.is_contiguous(memory_format=torch.channels_last)
        summed = [world.add(p.grad.clone()) for p in synchronised.parameters() if p.grad is not None]
        statistics = [b.float() for b in synchronised.buffers()]
        found[name] = max(
            float((answer.float() - expected[ours].float()).abs().max()),
            float((ours_gradient.float() - gradient[ours].float()).abs().max()),
            apart(summed, [p.grad for p in reference.parameters() if p.grad is not None]),
            apart(statistics, [b.float() for b in reference.buffers()]),
        )
    return found


def _through(norm: nn.Module, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    answer = norm(x)
    answer.backward(slope.to(answer.dtype))
    assert x.grad is not None
    return answer.detach(), x.grad


def train(world: World, folder: Path, wanted: Settings, until: int | None = None, asked: int | None = None) -> str:
    """A training, or its rest: its end as a hash, or what ended it; cut after `until`, rank 1 `asked` to stop."""
    folder.mkdir(parents=True, exist_ok=True)

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == asked and world.rank == 1:
            several.ask_to_stop()
        if isinstance(event, StepDone) and event.step == until:
            one.save()
            raise _CutError

    one = Training(state(world, wanted), wanted, Paths(folder, "plusx train --resume"), listen)
    one.resume()
    photos = Shared(world)
    try:
        outcome = fit(one, photos, photos.photos.validate)
    except _CutError:
        return "cut"
    except Interrupted as error:
        return f"{error.told} {error.message}"
    return checkpoint_of(one.state) if outcome.steps == wanted.total_steps else "ended early"


class _Doubled(Network):
    """The network in double precision: rounding is too small to be amplified, whatever the rate."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.block(F.relu(self.bn1(self.conv1(images.double() / 255))))
        return self.fc(x.mean(dim=(2, 3)))


def _doubled(world: World) -> float:
    """How far weights are from those of one process after twelve steps at a high rate, in double precision."""
    plan, found = how(learning_rate=0.3), []
    for each in (ALONE, world):
        torch.manual_seed(1)
        one = State.fresh(_Doubled().double(), plan, world=each)
        for step in range(12):
            train_step(one, Shared(each).batch(step), plan)
        found.append([value for value in one.model.state_dict().values() if value.is_floating_point()])
    return apart(found[1], found[0])


class _CutError(Exception):
    pass


def checkpoint_of(one: State) -> str:
    tensors = checkpoint.state_tensors(one)
    return hashlib.sha256(b"".join(n.encode() + tensors[n].numpy().tobytes() for n in sorted(tensors))).hexdigest()


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in durable.Log(folder / "history.jsonl").records() if "loss" in record]


def _together(argument: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    several.heed_stops()
    out = Path(argument)
    with joined(torch.device("cpu")) as world:
        mine = out / "first" if world.first else out / f"nobody-writes-{world.rank}"
        found: dict[str, Any] = {"steps": _steps(world), "norms": _norms(world)}
        found["whole"] = train(world, mine / "whole", how())
        train(world, out / "first/cut", how(), until=5)
        found["again"] = train(world, out / "first/cut", how())
        if world.size == 2:
            found |= _of_two(world, out, mine)
        found["drift"] = _drifted(world)
        found["doubled"] = _doubled(world)
        return found


def _of_two(world: World, out: Path, mine: Path) -> dict[str, Any]:
    found = {"asked": train(world, out / "first/asked", how(), asked=4)}
    found["drifting"] = _drifting(world, out / "first/drifting")
    found["going on"] = train(world, out / "first/asked", how())
    train(world, mine / "apart", how(batch_norm="per-process"))
    frozen = how(frozen=0.5)
    one, ours = state(ALONE, frozen), state(world, frozen)
    pairs = [(train_step(one, Shared(ALONE).batch(i), frozen), train_step(ours, Shared(world).batch(i), frozen))
             for i in range(12)]  # fmt: skip
    found["frozen"] = max(abs(a.loss - b.loss) / a.loss for a, b in pairs)
    if world.first:
        alone = Training(state(ALONE, how()), how(), Paths(out / "alone", ""), lambda _: None)
        (out / "alone").mkdir()
        fit(alone, Shared(ALONE), Photos().validate)
    return found


def _drifting(world: World, folder: Path) -> str:
    """What ends a training where a bit of the second process changes between two checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3 and world.rank == 1:
            with torch.no_grad():
                next(one.state.model.parameters()).view(-1)[0] += 1e-3

    plan = how(checkpoint_every=2)
    one = Training(state(world, plan), plan, Paths(folder, ""), listen)
    try:
        fit(one, Shared(world))
    except RunError as error:
        return error.message
    return ""


def _drifted(world: World) -> str:
    """What is said where a bit of the last process has changed."""
    one = state(world, how())
    if world.rank == world.size - 1:
        with torch.no_grad():
            next(one.model.parameters()).view(-1)[0] += 1e-3
    try:
        one.agree(how())
    except RunError as error:
        return error.message
    return ""


@pytest.fixture(scope="module", params=[2, 3])
def answered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp(f"several-{request.param}")
    return request.param, out, several.run(__file__, "_together", request.param, out, str(out))


def test_gradients_and_statistics_are_those_of_one_process(answered: Any) -> None:
    _, _, said = answered
    for answer in said:
        assert answer["steps"].keys() == CASES.keys()
        assert {name: far for name, far in answer["steps"].items() if far > CLOSE} == {}


def test_a_synchronised_norm_is_that_of_the_joined_batch(answered: Any) -> None:
    _, _, said = answered
    for answer in said:
        assert answer["norms"]["float32"] < 2e-4  # photos at 100: seven digits leave so much
        assert answer["norms"]["bfloat16"] < 0.05


def test_a_run_stopped_in_the_middle_ends_with_the_bits_of_an_unbroken_one_at_the_same_size(answered: Any) -> None:
    """T10, at 2 and at 3 processes: every process has the same weights, momentum and averages."""
    _, _, said = answered
    for answer in said:
        assert len(answer["whole"]) == 64
        assert answer["again"] == answer["whole"]
    assert len({answer["whole"] for answer in said[1:]}) == 1  # the first ends with its best weights


def test_only_the_first_process_writes(answered: Any) -> None:
    _, out, _ = answered
    assert (out / "first/whole/history.jsonl").exists()
    assert list(out.glob("nobody-writes-*/*/*")) == []


def test_weights_that_have_drifted_apart_end_the_run_with_the_rank_named(answered: Any) -> None:
    size, _, said = answered
    for answer in said:
        assert answer["drift"].startswith(f"Rank {size - 1} of {size} has other weights than rank 0 after step 0")


def test_weights_that_have_drifted_apart_are_not_saved_and_it_is_said_which_checkpoints_are_good(answered: Any) -> None:
    size, out, said = answered
    if size != 2:
        pytest.skip("of two processes")
    assert {answer["drifting"] for answer in said} == {
        "Rank 1 of 2 has other weights than rank 0 after step 4, though they had the same after step 2; what was saved "
        "since may be wrong. Look at the memory and the devices of both machines, remove the folders of steps after 2 "
        "from checkpoints in the run folder, and continue with --resume."
    }
    assert [checkpoint.step_of(path) for path in checkpoint.found(out / "first/drifting/checkpoints")] == [2]


def test_two_processes_give_the_curve_of_one_and_norms_of_their_own_another(answered: Any) -> None:
    size, out, said = answered
    if size != 2:
        pytest.skip("of two processes")
    one, two, own = (np.array(losses(out / name)) for name in ("alone", "first/whole", "first/apart"))
    assert len(one) == len(two) == 12
    assert np.abs(two / one - 1).max() < CURVE
    assert np.abs(own / one - 1).max() > 10 * CURVE
    assert said[0]["frozen"] < CURVE


def test_in_double_precision_weights_are_those_of_one_process_even_at_a_high_rate(answered: Any) -> None:
    _, _, said = answered
    for answer in said:
        assert answer["doubled"] < 1e-5  # the loss itself is computed in float32


def test_one_process_that_is_asked_to_stop_stops_all_after_the_same_step(answered: Any) -> None:
    size, out, said = answered
    if size != 2:
        pytest.skip("of two processes")
    told = f"Stopped after step 5; everything is in {out / 'first/asked'}. Continue with: plusx train --resume"
    assert [answer["asked"] for answer in said] == [f"False {told}", f"True {told}"]
    assert {answer["going on"] for answer in said} == {answer["whole"] for answer in said}


def test_a_single_value_over_all_processes_is_refused_in_the_words_of_pytorch() -> None:
    norm = nn.BatchNorm2d(2)
    synchronise(norm, ALONE)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 2, 1, 1))


def test_a_norm_of_another_kind_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(UsageError) as error:
        synchronise(nn.Sequential(Own(3)), World(0, 2))
    assert error.value.message == (
        "The network has norms of the kind Own, which plusx cannot synchronise between processes; use "
        "--set batch_norm=per-process, or one of the networks of plusx."
    )


def test_a_norm_of_all_processes_is_an_ordinary_one_to_everybody_else() -> None:
    norm = nn.BatchNorm2d(3)
    names = list(norm.state_dict())
    (same,) = synchronise(norm, World(0, 2))
    assert same is norm
    assert type(norm) is SynchronisedBatchNorm2d
    assert list(norm.state_dict()) == names
    norm.eval()
    assert torch.equal(norm(torch.ones(1, 3, 2, 2)), nn.BatchNorm2d(3).eval()(torch.ones(1, 3, 2, 2)))
