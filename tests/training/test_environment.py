"""The environment of a run is set, recorded, restored and compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from plusx.errors import UsageError
from plusx.training import environment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)


def test_a_prepared_environment_is_deterministic_and_says_so() -> None:
    environment.prepare(CPU, 1)
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
    environment.prepare(CPU, 2, fast_math=True)
    before = environment.record(torch.device("cpu"), fast_math=True)
    environment.prepare(CPU, 1)
    environment.prepare(CPU, int(before["threads"]), fast_math=not before["deterministic"])
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "high"
    environment.prepare(CPU, 1)
    assert torch.get_float32_matmul_precision() == "highest"


def test_apples_gpus_are_not_held_to_kernels_they_do_not_have_and_the_record_says_so() -> None:
    environment.prepare(torch.device("mps"), 1)
    assert not torch.are_deterministic_algorithms_enabled()
    assert environment.record(torch.device("mps"), fast_math=False)["deterministic"] is False


@pytest.mark.parametrize(("machine", "onednn", "chosen"), [("x86_64", True, "bf16"), ("arm64", True, "fp32")])
def test_bf16_is_chosen_where_convolutions_are_fast_in_it(
    machine: str, onednn: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "arm_bf16": True})
    assert environment.choose_precision(CPU, "auto") == chosen


def test_memory_is_kept_as_far_as_an_older_glibc_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Old:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            asked.append((name, value))
            return int(value <= 1 << 25 or name == -1)

    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: Old)
    environment.keep_freed_memory()
    assert asked == [(-3, 1 << 30), (-3, 1 << 25), (-1, (1 << 31) - 1)]


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
