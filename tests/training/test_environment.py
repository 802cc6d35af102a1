"""The environment of a run is set, recorded, restored and compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from plusx.errors import UsageError
from plusx.training import environment


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)


def test_a_prepared_environment_is_deterministic_and_says_so() -> None:
    environment.prepare(1)
    record = environment.record(torch.device("cpu"), fast_math=False)
    assert torch.are_deterministic_algorithms_enabled()
    assert (record["threads"], record["deterministic"], record["device"]) == (1, True, "cpu")
    assert record["torch"] == torch.__version__
    assert {"python", "numpy", "pillow", "processor", "cores", "system", "plusx"} <= set(record)
    assert not environment.differences(record, record)


def test_flushing_denormals_is_measured_and_not_assumed() -> None:
    torch.set_flush_denormal(False)
    assert environment.record(torch.device("cpu"), fast_math=False)["flush_denormal"] is False
    if torch.set_flush_denormal(True):
        assert environment.record(torch.device("cpu"), fast_math=False)["flush_denormal"] is True


def test_a_record_is_restored() -> None:
    environment.prepare(2, fast_math=True)
    before = environment.record(torch.device("cpu"), fast_math=True)
    environment.prepare(1)
    environment.prepare(int(before["threads"]), fast_math=not before["deterministic"])
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "high"
    environment.prepare(1)
    assert torch.get_float32_matmul_precision() == "highest"


def test_differences_are_told_in_words() -> None:
    assert environment.differences({"torch": "2.14", "cores": 2}, {"torch": "2.15", "cores": 2}) == [
        "torch was 2.14 and is now 2.15"
    ]


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert environment.choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(UsageError) as caught:
            environment.choose_device(name)
        assert caught.value.message == (
            f"There is no {name} device that this PyTorch can use; "
            "choose --device cpu, or --device auto for the best one."
        )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert environment.choose_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "precision", "there"),
    [("cpu", "fp32", True), ("cpu", "bf16", True), ("cpu", "fp16", False), ("cuda", "bf16", False)],
)
def test_a_precision_that_is_not_there_is_refused(
    device: str, precision: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    if there:
        environment.require_precision(torch.device(device), precision)
        return
    with pytest.raises(UsageError) as caught:
        environment.require_precision(torch.device(device), precision)
    assert caught.value.message == (
        f"{device} cannot train in {precision}; leave --set precision=... out, or choose another --device."
    )


def test_the_named_device_is_taken_and_auto_finds_one() -> None:
    assert environment.choose_device("cpu") == torch.device("cpu")
    assert environment.choose_device("auto").type in ("cpu", "cuda", "mps")
