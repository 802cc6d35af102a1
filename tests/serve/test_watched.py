"""What a run folder says while it grows, stands still, is cut back or is damaged."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pytest
import yaml

from plusx.recipes.plan import Plan
from plusx.run_folder import RunFolder
from plusx.serve import tail, watched
from plusx.serve.ahead import Ahead
from plusx.serve.tail import Curve, Tail
from plusx.serve.watched import WatchedRun
from tests.serve.growing import CONFIG, PLAN, Growing, tree


@pytest.fixture
def run(tmp_path: Path) -> Growing:
    """A run that has not begun."""
    return Growing(tmp_path / "run")


def looking(run: Growing) -> WatchedRun:
    return WatchedRun(RunFolder(run.path))


def test_a_growing_run_is_read_as_it_grows_and_each_line_once(run: Growing) -> None:
    view = looking(run)
    with run.trained():
        run.step(1, 0.9)
        assert view.look().series["loss"] == [[1, 0.9, 0.9, 0.9]]
        for step in range(10, 60, 10):
            run.step(step, 0.9 - step / 100)
            seen = view.look()
            assert (seen.state, seen.step, len(seen.series["loss"])) == ("running", step, 1 + step // 10)
        view.look()
    assert view.taken == sum((run.path / f"{name}.jsonl").stat().st_size for name in ("history", "timing"))


def test_the_best_validation_is_the_first_of_the_highest(run: Growing) -> None:
    for step, accuracy in ((100, 0.6), (200, 0.8), (300, 0.7), (400, 0.8)):
        run.validation(step, accuracy)
    seen = looking(run).look()
    assert seen.best == (200, 0.8)
    assert seen.validated == 50
    assert seen.series["val_accuracy"] == [[100, 0.6], [200, 0.8], [300, 0.7], [400, 0.8]]
    assert [loss for _, loss in seen.series["val_loss"]] == [0.4] * 4


def test_a_half_written_line_is_left_until_it_is_whole(run: Growing) -> None:
    view = looking(run)
    run.step(1)
    line = json.dumps({"step": 10, "epoch": 0, "loss": 0.25, "accuracy": 1.0, "rate": 0.1}) + "\n"
    run.raw("history", line[:20])
    seen = view.look()
    assert (seen.step, seen.notes) == (1, ())
    run.raw("history", line[20:])
    seen = view.look()
    assert (seen.step, seen.series["loss"][-1], seen.notes) == (10, [10, 0.25, 0.25, 0.25], ())


@pytest.mark.parametrize("longer", [False, True])
def test_a_log_that_is_cut_back_begins_anew_even_where_it_has_grown_past_its_old_end(
    run: Growing, longer: bool
) -> None:
    view = looking(run)
    for step in (1, *range(10, 110, 10)):
        run.step(step)
    run.validation(100, 0.9)
    assert view.look().best == (100, 0.9)
    for name in ("history", "timing"):
        path = run.path / f"{name}.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        os.truncate(path, len("".join(lines[:5])))
    for step in range(50, 500 if longer else 70, 10):
        run.step(step, 0.111)
    seen = view.look()
    assert seen.best is None
    assert [step for step, *_ in seen.series["loss"]] == [1, *range(10, 500 if longer else 70, 10)]
    assert [loss for _, loss, *_ in seen.series["loss"]][:6] == [0.5] * 5 + [0.111]
    assert [step for step, _ in seen.series["speed"]] == [step for step, *_ in seen.series["loss"]]


def test_a_run_with_its_model_is_finished_and_says_what_was_measured(run: Growing) -> None:
    run.step(1000)
    run.finish()
    seen = looking(run).look()
    assert (seen.state, seen.words, seen.seconds_left) == ("finished", "Finished; the model is written.", None)
    assert seen.next == f"plusx evaluate {run.path}"
    assert seen.figures == (
        ("validation accuracy", "90.00 % of 100 photos (95 % interval 82.00 % to 95.00 %)"),
        ("validation log loss", "0.3000"),
    )
    run.write("test", {"n": 10, "accuracy": 0.5, "log_loss": 1.0})
    seen = looking(run).look()
    assert seen.figures[2:] == (("test accuracy", "50.00 % of 10 photos"), ("test log loss", "1.0000"))
    assert seen.next == f"plusx predict {run.path} PHOTO"


def test_a_run_that_stands_still_and_is_saved_is_interrupted(run: Growing) -> None:
    run.step(40)
    run.checkpoint(20)
    run.checkpoint(43)
    seen = looking(run).look()
    assert (seen.state, seen.words) == ("interrupted", "Interrupted and saved: it goes on from step 43.")
    assert seen.next == f"plusx train --resume --out {run.path}"
    assert seen.seconds_left is None
    run.step(43)
    assert looking(run).look().state == "interrupted"


def test_a_run_that_stands_still_further_than_its_checkpoint_has_failed_or_was_killed(run: Growing) -> None:
    run.step(40)
    assert looking(run).look().words == (
        "Failed or was stopped at once after step 40; its own output says why. "
        "Resumed, it begins anew, for nothing was saved."
    )
    run.checkpoint(20)
    seen = looking(run).look()
    assert seen.state == "ended"
    assert seen.words.endswith("Resumed, it goes on from the checkpoint of step 20.")


def test_a_run_that_is_held_and_says_nothing_seems_stopped(run: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    run.step(40)
    with run.trained():
        assert looking(run).look().state == "running"
        monkeypatch.setattr(watched.time, "time", lambda now=time.time: now() + 200.0)
        seen = looking(run).look()
    assert seen.state == "silent"
    assert seen.words.startswith("Seems stopped: a process holds the run, and has logged nothing for 3 min.")


def test_a_run_is_given_the_time_that_its_lines_take(run: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(10, 60, 10):
        run.step(step, seconds=4.0)  # 40 s from line to line
    with run.trained():
        monkeypatch.setattr(watched.time, "time", lambda now=time.time: now() + 200.0)
        assert looking(run).look().state == "running"


def test_after_the_last_step_the_weights_are_measured_and_that_may_take_long(
    run: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.step(1000)
    with run.trained():
        monkeypatch.setattr(watched.time, "time", lambda now=time.time: now() + 200.0)
        seen = looking(run).look()
    assert seen.state == "running"
    assert seen.words.startswith("Every step is done; the weights are being measured")


def test_before_the_first_step_a_run_is_planned(run: Growing) -> None:
    assert looking(run).look().words == "Nobody is training this run, and no step of it was saved."
    with run.trained():
        seen = looking(run).look()
    assert (seen.state, seen.words) == ("planned", "The plan is made; the first step is about to be logged.")
    assert (seen.step, seen.steps, seen.seconds_left) == (0, 1000, None)


def test_a_folder_that_is_not_there_yet_is_read_when_it_appears(tmp_path: Path) -> None:
    view = WatchedRun(RunFolder(tmp_path / "run"))
    seen = view.look()
    assert (seen.state, seen.words) == ("planned", "The folder holds no run at the moment.")
    run = Growing(tmp_path / "run")
    with run.trained():
        run.step(1)
        assert view.look().state == "running"


def test_files_that_vanish_leave_nothing_behind_but_a_sentence(run: Growing) -> None:
    view = looking(run)
    run.step(10)
    view.look()
    for path in run.path.iterdir():
        path.unlink()
    seen = view.look()
    assert (seen.step, seen.steps, seen.series["loss"], seen.settings) == (0, None, [], ())
    assert seen.words == "The folder holds no run at the moment."


def test_damaged_files_are_named_and_passed_over(run: Growing) -> None:
    run.step(10)
    run.raw("history", '{"step": \n[1, 2]\nNaN\n{"step": "ten", "loss": 1}\n' + '{"a":' * 60_000 + "\n")
    run.raw("history", json.dumps({"step": 20, "loss": math.nan, "accuracy": 1e999, "rate": 10**400}) + "\n")
    run.step(30)
    (run.path / "plan.json").write_text("{}")
    (run.path / "config.yaml").write_text("a: [")
    (run.path / "environment.json").write_bytes(b"\xff\xfe")
    seen = looking(run).look()
    assert [point[0] for point in seen.series["loss"]] == [10, 30]
    assert (seen.step, seen.steps, seen.machine) == (30, None, ())
    assert seen.notes == (
        "history.jsonl has 4 lines that are no JSON object; passed over.",
        "plan.json is damaged or too large to be read; what it says is left out.",
        "config.yaml is damaged or too large to be read; what it says is left out.",
    )
    json.dumps(seen.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "change",
    [
        {"total_steps": 10**400},
        {"total_steps": 0},
        {"sizes": []},
        {"revisions": [[1]]},
        {"steps_per_epoch": -1},
        {"seconds_per_step": {"32": 1}},
        {"sizes": [["a", "b"]]},
        {"sizes": [[math.nan, 32]]},
        {"seconds_per_step": [[32, math.inf]]},
        {"seconds_per_step": [[32, 0.0], [48, 0.0]]},
        {"revisions": [[5, 0]]},
        {"total_steps": 10**15},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_plan_whatever_it_says_stops_a_look(run: Growing, change: dict) -> None:
    run.step(10)
    run.step(20)
    run.write("plan", PLAN | change)
    with run.trained():
        json.dumps(looking(run).look().to_json(), allow_nan=False)


def test_a_yaml_that_grows_without_end_is_not_unfolded(run: Growing) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 30)]
    (run.path / "config.yaml").write_text("\n".join([*rows, "model: *a29", "seed: 3"]))
    assert looking(run).look().settings == (("model", "…"), ("seed", "3"))


def test_a_hundred_thousand_lines_are_read_once_and_drawn_in_a_bounded_number_of_points(run: Growing) -> None:
    line = '{"step": %d, "epoch": 0, "loss": %.6f, "accuracy": 0.5, "rate": 0.1}\n'
    run.raw("history", "".join(line % (step, 1 + 1 / step) for step in range(1, 100_001)))
    view = looking(run)
    while (seen := view.look()).step < 100_000:
        assert "history.jsonl is long and not read to its end yet; the curves are growing." in seen.notes
    size = (run.path / "history.jsonl").stat().st_size
    assert (seen.step, seen.notes) == (100_000, ())
    assert size <= view.taken < 1.001 * size  # lines between two blocks
    points = seen.series["loss"]
    assert tail.POINTS / 2 <= len(points) <= tail.POINTS
    assert points[0][3] == 2.0
    assert len(json.dumps(seen.to_json())) < 80_000
    taken = view.taken
    view.look()
    assert view.taken == taken
    run.step(100_001)
    assert view.look().step == 100_001
    assert view.taken - taken < 400


def test_a_longer_log_is_read_over_several_looks_and_a_sentence_says_so(
    run: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BLOCK", 256)
    monkeypatch.setattr(tail, "MOST", 1024)
    for step in range(1, 60):
        run.step(step)
    view = looking(run)
    seen = view.look()
    assert 0 < seen.step < 59
    assert "history.jsonl is long and not read to its end yet; the curves are growing." in seen.notes
    for _ in range(10):
        seen = view.look()
    assert (seen.step, seen.notes, [p[0] for p in seen.series["loss"]]) == (59, (), list(range(1, 60)))


def test_a_line_that_never_ends_is_passed_over(run: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "BLOCK", 1024)
    run.raw("history", "x" * 5000 + "\n")
    run.step(7)
    assert looking(run).look().step == 7


def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(run: Growing) -> None:
    os.mkfifo(run.path / "history.jsonl")
    assert looking(run).look().step == 0


def test_a_thinned_curve_keeps_its_mean_its_extremes_and_its_end() -> None:
    curve = Curve(most=50)
    values = [math.sin(i / 100) + (5 if i == 777 else 0) for i in range(10_000)]
    for i, value in enumerate(values):
        curve.add(i, value)
    spans = curve.spans()
    assert 25 <= len(spans) <= 50
    assert max(high for *_, high in spans) == pytest.approx(max(values), rel=1e-4)
    assert min(low for _, _, low, _ in spans) == pytest.approx(min(values), rel=1e-4)
    assert curve.best == (777, values[777])
    assert spans[-1][0] > 9_700
    assert [step for step, *_ in spans] == sorted({step for step, *_ in spans})


def test_time_left_is_by_the_steps_that_are_logged_and_what_each_size_costs(run: Growing) -> None:
    for step in (1, *range(10, 110, 10)):
        run.step(step, seconds=0.15)  # half as long again as was measured before the run
    with run.trained():
        seen = looking(run).look()
    assert seen.seconds_left == pytest.approx(1.5 * (400 * 0.1 + 500 * 0.2) + 4.0)
    assert seen.sizes == ((0, 32), (500, 48))
    assert seen.size == 32
    assert seen.photos_seen == 1600


def test_a_clock_that_was_watched_for_long_is_believed_rather_than_single_steps(run: Growing) -> None:
    view = looking(run)
    begun = time.time() - 100
    with run.trained():
        for step in range(10, 110, 10):
            run.step(step, seconds=0.1)
            os.utime(run.path / "timing.jsonl", (begun + step, begun + step))  # a second each, validation and all
            seen = view.look()
    assert seen.seconds_left == pytest.approx(10 * (400 * 0.1 + 500 * 0.2) + 4.0)


def test_elapsed_time_is_by_the_clock_unless_the_run_stood_still_in_between(run: Growing) -> None:
    made = (run.path / "config.yaml").stat().st_mtime
    for step in range(10, 110, 10):
        run.step(step, seconds=0.1)  # ten seconds
    for later, told in ((12.0, 12.0), (5000.0, 10.0)):
        for name in ("history", "timing"):
            os.utime(run.path / f"{name}.jsonl", (made + later, made + later))
        assert looking(run).look().seconds == pytest.approx(told)


def test_revisions_are_told_with_their_reason(run: Growing) -> None:
    run.write("plan", PLAN | {"revisions": [[150, 900], [500, 1100], [700, 800]], "stalled_at": 700})
    seen = looking(run).look()
    assert seen.steps == 800
    assert seen.revisions == (
        "At step 150 the end went from step 1,000 to 900, since the machine was slower than measured.",
        "At step 500 the end went from step 900 to 1,100, since the machine was faster than measured.",
        "At step 700 the end went from step 1,100 to 800, since validation stood still.",
    )


@pytest.mark.parametrize("revisions", [[], [[300, 700]], [[300, 700], [600, 1500]]])
def test_what_is_read_of_a_plan_is_what_the_plan_itself_says(revisions: list) -> None:
    values = PLAN | {"revisions": revisions}
    plan, ahead = Plan.from_json(values), Ahead.from_json(values)
    assert ahead.last_step == plan.last_step
    for step in range(0, plan.last_step, 7):
        assert ahead.size_at(step) == plan.size_at(step)
        assert ahead.done(step) == plan.progress(step)
        if not revisions or step >= revisions[-1][0]:  # a revision is written when it is made
            assert ahead.seconds_from(step, 2.0) == pytest.approx(plan.seconds_from(step, 2.0), rel=0.01, abs=1.0)
    starts = [(step, size) for step, size in ahead.marks() if step]
    assert all(plan.size_at(step) == size != plan.size_at(step - 1) for step, size in starts)


def test_photos_left_out_and_settings_are_told(run: Growing) -> None:
    rows = "".join(f"cat/{i}.jpg,truncated,the file ends early\n" for i in range(30))
    (run.path / "skipped.csv").write_text("path,code,reason\n" + rows)
    seen = looking(run).look()
    assert seen.skipped == 30
    assert seen.skipped_first[:1] == (("cat/0.jpg", "the file ends early"),)
    assert len(seen.skipped_first) == watched.SKIPPED
    assert seen.settings == (("model", "resnet10"), ("batch_size", "16"), ("time", "1 min 0 s"), ("seed", "0"))
    assert seen.machine == (("device", "cpu"), ("threads", "2"), ("plusx", "0.1.0"))


def test_accuracy_of_batches_is_left_out_where_photos_are_mixed(run: Growing) -> None:
    (run.path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"mixup": 0.2}))
    run.step(10)
    seen = looking(run).look()
    assert (seen.series["accuracy"], len(seen.series["loss"])) == ([], 1)


def test_looking_writes_nothing_and_keeps_nobody_out(run: Growing) -> None:
    run.step(10)
    run.checkpoint(10)
    before, view = tree(run.path), looking(run)
    for _ in range(3):
        view.look()
        with run.trained():
            view.look()
    assert tree(run.path) == before


def test_a_log_read_by_itself_says_when_it_was_written(run: Growing) -> None:
    log = Tail(run.path / "history.jsonl")
    assert (log.news().records, log.changed) == ((), None)
    run.step(10)
    assert len(log.news().records) == 1
    assert log.changed == pytest.approx(time.time(), abs=5)
