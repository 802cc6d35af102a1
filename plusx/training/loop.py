"""The loop: batch, step, log, validate, checkpoint, until the plan is done."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from plusx import durable
from plusx.errors import DataError, DiskError, disk
from plusx.errors import training as sentences
from plusx.training import checkpoint
from plusx.training.events import Listener, Notice, Saved, StepDone, Validated, WeightsDue
from plusx.training.interrupt import GRACE_SECONDS, Stop, others_missed, stopping
from plusx.training.memory import explained, out_of_memory
from plusx.training.paths import Paths
from plusx.training.settings import Settings
from plusx.training.step import Batch, NotFiniteError, State, StepResult, apply_gradients, compute_gradients

BEST_FILE = "model.safetensors"
LONE_VALUE = "more than 1 value per channel"  # PyTorch's words where batch norm gets a single value
OTHERS_WAIT = 6.0  # seconds that other processes than the first wait for the end of a step when they are asked to stop
CHOSEN_BY = "accuracy"  # the validation figure that decides which weights are best

Validate = Callable[[nn.Module], Mapping[str, float]]
Revise = Callable[[int, bool], tuple[tuple[int, int], ...] | None]  # from the step, and whether validation stalls


class BatchSource(Protocol):
    """Batches as a pure function of the step."""

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0."""

    def name(self, index: int) -> str:
        """The photo behind one of a batch's indices."""


@dataclass(frozen=True)
class Outcome:
    """The end of a training: which weights were kept and why it ended."""

    model: nn.Module
    steps: int
    kept_step: int
    stopped_early: bool


class Training:
    """One run in progress: its state, and where it is written. Of several processes only the first writes."""

    def __init__(self, state: State, settings: Settings, paths: Paths, listen: Listener) -> None:
        self.state, self.settings, self.paths, self.listen = state, settings, paths, listen
        self.world = state.world
        self.asked = False  # to stop: one of several processes was, and all have heard it
        self.logs = paths.logs
        self.buffers = _copies(state.model)
        self.saved_at, self.saved_step = time.monotonic(), -1
        self.place = durable.identity(paths.folder)
        self.plan_refused = False  # by the disk, which is told once

    @property
    def total(self) -> int:
        """Steps of the run as now planned."""
        return self.settings.revisions[-1][1] if self.settings.revisions else self.settings.total_steps

    @property
    def epoch(self) -> int:
        """The epoch of the last finished step, from 0."""
        return max(0, self.state.step - 1) // self.settings.steps_per_epoch

    @property
    def counted(self) -> bool:
        """Whether a checkpoint is due after the last finished step as all processes count them."""
        return self.state.step % self.settings.checkpoint_every == 0

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has not improved for as long as the settings allow."""
        return self.settings.patience is not None and self.state.stale >= self.settings.patience

    def resume(self) -> None:
        """Go back to the newest valid checkpoint and cut the logs to it; to step 0 where there is none.

        The first process chooses, and all read the same.
        """
        choice = checkpoint.Choice.from_json(
            self.world.once(lambda: self.paths.resumed_from(self.settings.keep).to_json())
        )
        path = choice.path
        for fault in choice.skipped:
            self.listen(Notice(f"Skipped a damaged checkpoint ({fault}); using the one before it."))
        offsets = self.world.alike(lambda: checkpoint.load(path, self.state) if path else {})
        if path and choice.lost:
            self.state.best, self.state.best_step, self.state.stale = None, 0, 0
            self.listen(Notice(sentences.best_lost(path, choice.lost)))
        self.world.once(lambda: self._cut(offsets))
        self.buffers = _copies(self.state.model)
        self.saved_step = self.state.step if path else -1
        self.state.agreed = self.state.step  # all have read the same

    def save(self) -> None:
        """Write a checkpoint of the last finished step, unless it is there already or another process does it.

        Raises DiskError where the disk refuses it or the run folder is gone, RunError where weights are not finite.
        """
        if self.saved_step == self.state.step or not self.world.first:
            return
        with self.world.alone():
            self._refuse_other_folder()
            self.refuse_not_finite()
            offsets = {name: log.offset() for name, log in self.logs.items()}
            path = checkpoint.save(self.paths.checkpoints, self.state, offsets, self.buffers)
            self.saved_at, self.saved_step = time.monotonic(), self.state.step
            self._prune_best()
            self.listen(Saved(path))

    def refuse_not_finite(self) -> None:
        """Raise RunError where an update has made anything of the state NaN or infinite.

        Statistics, averages and momentum too: with infinite variances a network goes on learning, and answers nothing.
        """
        for name, value in checkpoint.named_tensors(self.state, self.buffers).items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise sentences.weights_not_finite(self.state.step, checkpoint.told(name, self.state))

    def save_if_due(self) -> None:
        """Write a checkpoint every so many steps or seconds, whichever comes first."""
        if self.counted or time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds:
            self.save_if_possible()

    def save_if_possible(self) -> None:
        """Write a checkpoint. A full disk costs this one, neither the one before nor the run: it is tried again later.

        Raises DiskError where the run folder is gone, for then there is nothing to resume or to finish.
        """
        try:
            self.save()
        except DiskError as error:
            if error.code == disk.GONE:
                raise
            self.saved_at = time.monotonic()
            self.listen(Notice(f"No checkpoint at step {self.state.step}: {error.message} The run goes on."))

    def record(self, result: StepResult, photos: int, seconds: float) -> None:
        """Log a finished step."""
        step = self.state.step
        if step % self.settings.log_every == 0 or step in (1, self.total):
            figures = {"loss": result.loss, "accuracy": result.accuracy, "rate": result.rate}
            self._log("history", {"step": step, "epoch": self.epoch} | figures)
            self._log("timing", {"step": step, "seconds": seconds, "images_per_second": photos / seconds})
        self.listen(StepDone(step, self.total, self.epoch, result.loss, result.accuracy, photos, seconds))

    def validation_due(self) -> bool:
        """Whether the last finished step ends an epoch that is validated, or the run."""
        step = self.state.step
        every = self.settings.validate_every * self.settings.steps_per_epoch
        return 0 < step != self.state.validated and (step % every == 0 or step == self.total)

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Take note of a validation; keep the weights where they are the best so far."""
        with self.world.alone():
            self._refuse_other_folder()
        state = self.state
        improved = metrics[CHOSEN_BY] > (-math.inf if state.best is None else state.best)  # NaN never is
        better = improved and self.world.once(self._keep_best)
        state.validated = state.step
        state.stale = 0 if improved else state.stale + 1
        if better:
            state.best, state.best_step = metrics[CHOSEN_BY], state.step
        self.saved_step = -1  # the same step, but more is known
        with self.world.alone():
            self._log("history", {"step": state.step, "epoch": self.epoch, "validation": dict(metrics)})
            self.listen(Validated(state.step, self.epoch, metrics, better))

    def outcome(self) -> Outcome:
        """The model to keep, with its weights in place; in other processes than the first, the last weights."""
        kept, step = self.state.kept, self.state.step
        if self.settings.keep == "best" and self.state.best is not None and self.world.first:
            step = self.state.best_step
            try:
                kept.load_state_dict(self._best_tensors(step), strict=True)
            except (RuntimeError, safetensors.SafetensorError) as error:  # whole, and not what belongs there
                why = " ".join(str(error).split())[:200]
                raise sentences.best_damaged(self._best_folder(step), why) from None
        return Outcome(kept.eval(), self.state.step, step, self.state.step < self.total)

    def _cut(self, offsets: Mapping[str, int]) -> None:
        for name, log in self.logs.items():
            if not log.truncate(offsets.get(name, 0)):
                self.listen(Notice(sentences.lines_lost(log.path, self.state.step)))

    def _log(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a log. What the disk refuses waits, which is told once, and no checkpoint passes it by."""
        if not self.world.first:
            return
        self._refuse_other_folder()
        log = self.logs[name]
        told = log.waiting > 0
        try:
            log.append(record)
        except DiskError as error:
            if not told:
                self.listen(Notice(f"{error.message} The run goes on; lines wait until they can be written."))

    def _refuse_other_folder(self) -> None:
        """Raise DiskError where the run folder is gone, or another has taken its place."""
        if self.world.first and durable.replaced(self.paths.folder, self.place):
            raise disk.folder_gone(self.paths.folder)

    def _keep_best(self) -> bool:
        """Write the weights as the best so far; a full disk leaves those before, and says so."""
        tensors = {name: value.cpu().contiguous() for name, value in self.state.kept.state_dict().items()}
        try:
            durable.write_folder(self._best_folder(self.state.step), {BEST_FILE: safetensors.torch.save(tensors)})
        except DiskError as error:
            self.listen(Notice(f"The weights of step {self.state.step} are not kept as the best: {error.message}"))
            return False
        return True

    def _best_tensors(self, step: int) -> dict[str, Tensor]:
        folder = self._best_folder(step)
        fault = durable.folder_fault(folder)
        if fault is not None:
            raise sentences.best_damaged(folder, fault)
        return safetensors.torch.load((folder / BEST_FILE).read_bytes())

    def _best_folder(self, step: int) -> Path:
        return self.paths.best / f"step-{step:06d}"

    def _prune_best(self) -> None:
        """Drop best weights that no checkpoint refers to any more."""
        known = checkpoint.best_steps(self.paths.checkpoints) | {self.state.best_step}
        for path in checkpoint.found(self.paths.best):
            if checkpoint.step_of(path) not in known:
                shutil.rmtree(path, ignore_errors=True)


def fit(
    training: Training, batches: BatchSource, validate: Validate | None = None, revise: Revise | None = None
) -> Outcome:
    """Train to the end of the plan, from wherever `training` stands.

    Raises Interrupted after SIGINT or SIGTERM (with a checkpoint written), RunError on a loss that is not
    finite or a batch that does not fit into memory.
    """
    grace = GRACE_SECONDS if training.world.first else OTHERS_WAIT  # so that the first has saved before others are gone
    saving = stopping(lambda: _save_and_tell(training), grace)
    with saving as stop, training.world.ended_by(stop.give_up), others_missed(training.world, stop):
        _validate(training, validate, stop)  # one that an interruption has cut off
        breaks_off = revise is None or training.settings.schedule == "constant"  # there is no end to bring near
        while training.state.step < training.total and not (breaks_off and training.out_of_patience):
            _leave_if_asked(training, stop)
            _review(training, revise)
            _step(training, batches, stop)
            _validate(training, validate, stop)
            if training.counted:
                training.state.agree(training.settings)
            with stop.changing:
                training.save_if_due()
        training.state.agree(training.settings)
        with stop.changing:
            training.save_if_possible()
        training.asked = bool(training.world.add(torch.tensor(int(stop.requested.is_set()))))
        _leave_if_asked(training, stop)  # asked up to the very end: what follows can be resumed as well
    training.asked = training.world.first and stop.requested.is_set()  # since then, where the others are leaving anyway
    _leave_if_asked(training, stop)
    return training.outcome()


def _step(training: Training, batches: BatchSource, stop: Stop) -> None:
    state, started = training.state, time.perf_counter()
    place = divmod(state.step, training.settings.steps_per_epoch)
    batch = _batch(training, batches, stop)
    training.world.at(state.step)
    with _failures_explained(training, batch, batches, stop):
        result = compute_gradients(state, batch, training.settings, asked=stop.requested.is_set())
        with _changing(stop):
            apply_gradients(state, training.settings)
            training.asked = result.asked
            training.buffers = _copies(state.model)
            every = training.settings.save_weights_every
            with training.world.alone():
                training.record(result, len(batch.indices), time.perf_counter() - started)
                if every and place[1] % every == 0:
                    training.listen(WeightsDue(*place, state.model))


def _batch(training: Training, batches: BatchSource, stop: Stop) -> Batch:
    """The batch of the next step. Where its photos cannot be had any more, what was learned so far is saved first."""
    try:
        return batches.batch(training.state.step)
    except DataError:
        with stop.changing:
            training.save_if_possible()
        raise


@contextmanager
def _failures_explained(training: Training, batch: Batch, batches: BatchSource, stop: Stop) -> Iterator[None]:
    """Turn the ways in which a step fails into sentences."""
    try:
        yield
    except NotFiniteError as error:
        names = [batches.name(int(i)) for i in batch.indices]
        raise sentences.loss_not_finite(training.state.step + 1, error.loss, names) from None
    except ValueError as error:
        if LONE_VALUE not in str(error):
            raise
        raise sentences.lone_value(training.state.step + 1) from None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        stop.reached()  # the state may be half updated: nobody is to save it now
        raise explained(error, training.state, batch, training.settings) from None


def _validate(training: Training, validate: Validate | None, stop: Stop) -> None:
    if validate is None or not training.validation_due():
        return
    training.refuse_not_finite()  # such weights are neither measured nor kept as the best
    training.state.agree(training.settings)
    training.state.kept.eval()
    with torch.inference_mode():
        metrics = validate(training.state.kept)
    with _changing(stop):
        training.validated(metrics)


@contextmanager
def _changing(stop: Stop) -> Iterator[None]:
    """Change the state while nobody saves it. Where that fails half way, nobody is to save it afterwards either."""
    with stop.changing:
        try:
            yield
        except BaseException:
            stop.reached()
            raise


def _review(training: Training, revise: Revise | None) -> None:
    """Ask the caller whether the plan has to be revised: to keep its budget, to use it, or to end a stalled run."""
    stalled = training.out_of_patience
    try:
        revisions = revise(training.state.step, stalled) if revise else None
    except DiskError as error:  # a plan is only followed once it is written
        if not training.plan_refused:
            training.listen(Notice(f"{error.message} The plan stays as it is."))
        training.plan_refused = True
        return
    if revisions is not None:
        before = training.total
        training.settings = replace(training.settings, revisions=revisions)
        how = f"The machine is {'slower' if training.total < before else 'faster'} than measured"
        why = "Validation stands still" if stalled else how
        training.listen(Notice(f"{why}: the run now ends at step {training.total:,}."))


def _leave_if_asked(training: Training, stop: Stop) -> None:
    """Leave where that was asked for; several processes do so after the step in which all have heard it."""
    if training.asked or (training.world.size == 1 and stop.requested.is_set()):
        stop.reached()
        with stop.changing:
            training.save()
        error = sentences.interrupted(training.state.step, training.paths.folder, training.paths.resume_command)
        error.told = not training.world.first
        raise error


def _save_and_tell(training: Training) -> str:
    training.save()
    training.world.leave()
    return sentences.interrupted(training.state.step, training.paths.folder, training.paths.resume_command).message


def _copies(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers that are part of the state dict: what a forward pass may move."""
    kept = model.state_dict().keys()
    return {name: value.detach().clone() for name, value in model.named_buffers() if name in kept}
