"""`benchmarks/peers.py`: what it plans, what it takes for done, how it counts, and what its table says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def peers() -> Any:
    """The module, with its neighbours importable as they are when it runs as a script."""
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "rivals")]
    try:
        import peers
        import photo_folders
        import trial

        peers.photo_folders, peers.trial = photo_folders, trial
        yield peers
    finally:
        sys.path[:] = before


def wanted(peers: Any, *flags: str) -> Any:
    return peers.asked(["photos.tar", "work", "envs", *flags])


def line(**changed: Any) -> dict[str, Any]:
    """A line as a run leaves it."""
    made = {"peer": "timm", "setting": "best", "size": None, "minutes": 10.0, "seed": 0, "limit": None}
    made |= {"accuracy": 0.9, "n": 2500, "images": 60_000, "seconds": 600.0, "photos": 20_000, "pixels": 96}
    made |= {"reached": {"80.00%": 120.0, "90.00%": None}, "versions": {"timm": "1.0"}, "described": "tuned"}
    return made | changed


def test_every_rival_is_one_file_that_says_what_it_needs(peers: Any) -> None:
    found = {peer.script.stem: peer for peer in peers.all_peers()}
    assert next(iter(found)) == "plusx_train"
    assert {"textbook", "torchvision_reference", "timm_train", "fastai_learner", "ultralytics_classify"} < set(found)
    for peer in found.values():
        assert peer.settings.keys() == peer.testing_minutes.keys() <= {"default", "best"}
        assert not {"torch", "torchvision"} & {*peer.packages, *peer.needs}


def test_the_hours_are_those_of_training_and_testing(peers: Any) -> None:
    timm = next(peer for peer in peers.all_peers() if peer.name == "timm")
    runs = peers.plan([timm], wanted(peers, "--minutes", "30", "--seeds", "0", "1"))
    testing = sum(timm.testing_minutes.values())
    assert peers.hours(runs) == pytest.approx((4 * 30 + 2 * testing) / 60)


def test_what_has_a_line_is_not_run_again_and_another_seed_size_or_limit_is(peers: Any) -> None:
    timm = [peer for peer in peers.all_peers() if peer.name == "timm"]
    runs = peers.plan(timm, wanted(peers, "--settings", "best"))
    assert peers.missing(runs, [line()]) == []
    for other in ({"seed": 1}, {"size": 64}, {"minutes": 5.0}, {"limit": 100}, {"setting": "default"}):
        assert peers.missing(runs, [line(**other)]) == runs


def test_accuracy_is_over_all_test_photos_and_one_without_an_answer_is_wrong(peers: Any, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.csv"
    predictions.write_text("path,cat,dog\ncat/1.jpg,0.9,0.1\ndog/2.jpg,0.6,0.4\ndog/3.jpg,0.2,0.8\n")
    labels = {"cat/1.jpg": "cat", "dog/2.jpg": "dog", "dog/3.jpg": "dog", "cat/4.jpg": "cat"}
    assert peers.score(predictions, labels) == {"accuracy": 0.5, "n": 4, "unanswered": 1}


def test_a_mark_is_reached_at_the_first_validation_at_or_above_it(peers: Any) -> None:
    history = [{"seconds": s, "accuracy": a} for s, a in ((10, 0.7), (20, 0.9), (30, 0.85), (40, 0.92))]
    assert peers.reached(history) == {"80.00%": 20, "90.00%": 20, "93.23%": None}


def test_the_table_has_the_most_accurate_first_and_a_dash_for_what_was_not_reached(peers: Any) -> None:
    lines = [
        line(),
        line(seed=1, accuracy=0.92, reached={"80.00%": 100.0, "90.00%": 500.0}),
        line(peer="plusx", setting="default", accuracy=0.95, reached={"80.00%": 40.0, "90.00%": None}),
    ]
    head, _, first, second, blank, *said = peers.table(lines)
    figures = "accuracy | photos tested | images/s | epochs | s to 80.00%"
    assert head.startswith(f"| minutes | what | setting | px | runs | {figures}")
    assert first == "| 10 | plusx | default | 96 | 1 | 95.00 % | 2,500 | 100 | 3.0 | 40 | - |"
    accuracy, there = "91.00 ± 1.41 %", "500 (1 of 2)"
    assert second == f"| 10 | timm | best | 96 | 2 | {accuracy} | 2,500 | 100 ± 0 | 3.0 ± 0.0 | 110 ± 14 | {there} |"
    assert blank == ""
    assert said == ["- timm, best: tuned (timm 1.0)", "- plusx, default: tuned (timm 1.0)"]


def test_locked_photos_are_tested_and_one_in_twenty_of_the_others_validated(peers: Any) -> None:
    names = [f"2{number:015x}.jpg" for number in range(0, 1 << 56, 1 << 44)]
    parts = [peers.photo_folders.part_of(name, "train") for name in names]
    assert set(parts) == {"train", "val"}
    assert parts.count("val") / len(parts) == pytest.approx(13 / 256, abs=0.001)
    assert peers.photo_folders.part_of("02.jpg", "test") == "test"


def test_what_is_slow_is_tested_with_the_first_photos_by_content(peers: Any, tmp_path: Path) -> None:
    for name in ("cat/03.jpg", "dog/00.jpg", "dog/10.jpg", "cat/02.jpg"):
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).touch()
    folders = peers.photo_folders.Folders(tmp_path)
    assert folders.testing(None) is folders
    for _ in range(2):  # made once, found the next time
        assert folders.testing(2).test_labels() == {"dog/00.jpg": "dog", "cat/02.jpg": "cat"}
    assert len(folders.test_labels()) == 4
    assert (tmp_path / "test/dog/00.jpg").stat().st_nlink == 2


def test_the_clock_stands_still_while_a_rival_validates(peers: Any, tmp_path: Path, monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr(peers.trial.time, "monotonic", lambda: now[0])
    folder = {name: tmp_path / name for name in ("train", "val", "test")}
    asked = peers.trial.Trial(**folder, minutes=1, setting="best", size=None, seed=0, out=tmp_path, started=90.0)
    journal = peers.trial.Journal(asked)
    now[0] = 110.0
    with journal.uncounted():
        now[0] = 150.0
        journal.validated(0.75)
    now[0] = 160.0
    assert journal.seconds == 30.0
    assert journal.progress == 0.5
    found = json.loads((tmp_path / "history.jsonl").read_text())
    assert found == {"seconds": 20.0, "images": 0, "accuracy": 0.75}


def test_the_textbook_rival_has_the_network_of_the_textbook_recipe(peers: Any) -> None:
    import textbook

    from plusx.models import create_model

    def shapes(network: Any) -> list[tuple[int, ...]]:
        return sorted(tuple(p.shape) for p in network.parameters())

    assert shapes(textbook.network(2)) == shapes(create_model("resnet18-3x3", classes=2))


def test_rates_rise_to_their_peak_and_fall_to_zero_by_the_clock(peers: Any) -> None:
    import loop
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    set_rates = loop.warm_then_cosine(optimizer, 0.1)
    rates = []
    for progress in (0.0, 0.05, 0.1, 0.55, 1.0):
        set_rates(progress)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.0])
