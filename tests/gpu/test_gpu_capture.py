"""`inferwatch doctor --capture`: what it writes plays back as the host it came from, and gives nobody away."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferwatch import cli
from inferwatch_collectors.gpu.base import GpuLostError
from inferwatch_collectors.gpu.capture import FORMAT, record
from inferwatch_collectors.gpu.nvml import NvmlSource

Frames = Callable[[str], list[dict[str, Any]]]

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "nvml").glob("*.json"))
NAMES = [path.stem for path in FIXTURES]


def read_all(stub: Any, frames: list[dict[str, Any]]) -> list[Any]:
    """Return all readings of all frames, without ids."""
    stub.play(frames[0])
    source = NvmlSource(stub.library)
    devices = source.open()
    readings: list[Any] = []
    for number in range(len(frames)):
        stub.play(*frames[: number + 1])
        for device in devices:
            try:
                sample = device.sample(number)
            except GpuLostError as error:
                readings.append(type(error))
                continue
            readings.append(
                [
                    getattr(sample, name)
                    for name in sample.__struct_fields__
                    if name not in ("identity", "processes", "mig_instances")
                ]
                + [[(each.profile, each.memory, each.activity) for each in sample.mig_instances]]
                + [None if sample.processes is None else [each.memory_bytes for each in sample.processes]]
                + [sample.identity.model, sample.identity.pci_bus_id, sample.identity.driver_version]
            )
        readings.append([(event.identity.index, event.xid) for event in source.events()])
    return readings


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_plays_back_as_what_it_was_taken_from(name: str, stub: Any, frames: Frames) -> None:
    """Recorded from the stand-in that plays a capture, and played again: the same readings."""
    original = frames(name)
    expected = read_all(stub, original)
    stub.reset()
    stub.play(original[0])
    number = 0

    def next_frame(_: float) -> None:
        nonlocal number
        number += 1
        stub.play(*original[: number + 1])

    captured = record(stub.library, samples=len(original), interval_s=1.0, sleep=next_frame)
    assert read_all(stub, json.loads(json.dumps(captured))["frames"]) == expected


def test_ids_are_made_up(stub: Any) -> None:
    """Neither boards nor processes can be recognised."""
    stub.answer(
        **{
            "/nvmlDeviceGetCount": 1,
            "GPU0_nvmlDeviceGetUUID": "GPU-5e1f00d5-dead-beef-8000-c0ffee000000",
            "GPU0_nvmlDeviceGetName": "NVIDIA L4",
            "GPU0_nvmlDeviceGetPowerUsage": 1,
            "GPU0_nvmlDeviceGetComputeRunningProcesses_v3": [[31337, 5], [4711, 6]],
        }
    )
    text = json.dumps(record(stub.library, samples=1, interval_s=0))
    assert "dead-beef" not in text
    assert "31337" not in text
    assert "4711" not in text
    assert "GPU-00000000-0000-4000-8000-000000000001" in text


@pytest.mark.parametrize("path", FIXTURES, ids=NAMES)
def test_fixtures_say_what_they_are(path: Path) -> None:
    """Written by hand or recorded, and from what."""
    document = json.loads(path.read_text("utf-8"))
    assert document["format"] == FORMAT
    assert document["synthetic"] == document["about"].startswith("Synthetic: ")
    assert document["about"]


def test_the_command(stub: Any, frames: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Writes the file and says in one line what is in it."""
    stub.play(frames("l4_falls_off")[0])
    monkeypatch.setenv("INFERWATCH__GPU__NVML_LIBRARY", stub.library)
    monkeypatch.setenv("INFERWATCH__GPU__INTERVAL_S", "0.2")
    file = tmp_path / "host.json"
    assert cli.main(["doctor", "--capture", str(file), "--readings", "2"]) == 0
    out = capsys.readouterr().out
    assert out == f"{file}: 2 GPU(s), 2 readings, {file.stat().st_size} bytes\n"
    assert len(json.loads(file.read_text())["frames"]) == 2


def test_a_file_that_cannot_be_written(stub: Any, frames: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """One line that names it."""
    stub.play(frames("l4_falls_off")[0])
    monkeypatch.setenv("INFERWATCH__GPU__NVML_LIBRARY", stub.library)
    file = tmp_path / "nowhere" / "host.json"
    assert cli.main(["doctor", "--capture", str(file), "--readings", "1"]) == 1
    assert capsys.readouterr().err == f"inferwatch: doctor: cannot write `{file}`: No such file or directory\n"


def test_nothing_to_capture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says why, and no file."""
    monkeypatch.setenv("INFERWATCH__GPU__NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1")
    file = tmp_path / "host.json"
    assert cli.main(["doctor", "--capture", str(file)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("inferwatch: doctor: nothing to capture: gpu.nvml_library: cannot load `/nowhere/")
    assert err.count("\n") == 1
    assert not file.exists()


@pytest.mark.parametrize("readings", ["0", "-1", "1001", "x", "²"])
def test_a_number_of_readings_that_is_none(readings: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors name the limit."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--capture", "x", "--readings", readings])
    assert caught.value.code == 2
    assert "expected a number from 1 to 1000" in capsys.readouterr().err
