"""The check of a machine: what is missing is named with the remedy, and a bundle names nobody."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from accelerate import Accelerator

from domainclip.cli.app import main
from domainclip.config import builtin
from domainclip.models.loading import load_model
from domainclip.pipelines.doctor import bundle, decoders, environment, examine, hardware, overfit
from domainclip.pipelines.doctor.check import Check


def _run(*words: str) -> int:
    try:
        main(["doctor", *words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_sound_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--no-train", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    levels = {check["name"]: check["level"] for check in found["checks"]}
    assert found["ok"]
    assert {"python", "packages", "images", "dicom", "precision", "disk cache"} <= set(levels)
    assert "hub" not in levels  # only where it is asked for
    assert levels["images"] == levels["packages"] == levels["precision"] == "ok"


def test_a_fault_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Check:
        raise RuntimeError("jane")

    monkeypatch.setattr(examine.decoders, "decoder_checks", broken)
    assert _run("--no-train") == 4
    output = capsys.readouterr().out
    assert "decoders" in output
    assert "the check failed (RuntimeError)" in output
    assert "jane" not in output


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.0.1", "peft": None}
    known = environment.installed_version
    monkeypatch.setattr(environment, "installed_version", lambda name: versions.get(name, known(name)))
    fine, *faults = environment.package_checks()
    assert fine.level == "ok"
    assert [(fault.level, fault.text, fault.remedy) for fault in faults] == [
        ("fault", "peft is not installed, required is >=0.17", "pip install -U 'peft>=0.17'"),
        ("fault", "torch is 2.0.1, required is >=2.4", "pip install -U 'torch>=2.4'"),
    ]


def test_missing_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        decoders, "find_plugin", lambda syntax: "" if "4.57" in syntax or "4.70" in syntax else "x"
    )
    found = decoders.dicom_check()
    assert (found.level, found.text) == ("warning", "cannot be decoded: JPEG Lossless")
    assert 'pip install "domainclip[dicom]"' in found.remedy

    def no_codec(image: Any) -> Any:
        raise OSError("decoder jpeg not available")

    monkeypatch.setattr(decoders, "decode_image", no_codec)
    assert decoders._image_check().level == "fault"


def test_a_processor_that_multiplies_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.Tensor.__matmul__

    def wrong(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return whole(left, right) * (1.5 if left.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    found = hardware.precision_check("cpu")
    assert (found.level, found.text) == ("fault", "wrong products in bfloat16")


@pytest.mark.parametrize(("free", "level"), [(16, "ok"), (2, "warning"), (0.5, "fault")])
def test_memory(monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    memory = SimpleNamespace(available=free * 2**30, total=32 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = hardware.memory_checks()[0]
    assert (found.level, bool(found.remedy)) == (level, level != "ok")


@pytest.mark.parametrize(("free", "level"), [(50, "ok"), (2, "warning"), (0.1, "fault")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: str) -> None:
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * 2**30))
    assert hardware.disk_check("disk cache", tmp_path / "not" / "yet", "move it").level == level
    monkeypatch.setattr(hardware.os, "access", lambda folder, mode: False)
    assert hardware.disk_check("disk cache", tmp_path, "move it").text == "cannot be written"


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(request: Any, timeout: float) -> Any:
        raise urllib.error.URLError(socket.gaierror("proxy.hospital.example"))

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    found = environment.hub_check()
    assert (found.level, found.text) == ("fault", "https://huggingface.co cannot be reached (gaierror)")
    monkeypatch.setenv("DOMAINCLIP_OFFLINE", "1")
    assert environment.hub_check().level == "warning"


def test_a_loss_that_does_not_fall_is_a_fault() -> None:
    found = overfit.overfit_check(steps=1)
    assert (found.level, found.name) == ("fault", "overfit")
    assert "it must fall below 1" in found.text


def test_the_steps_learn_the_pairs() -> None:
    model = load_model(builtin.builtin_folder("examples") / "quickstart" / "base")
    losses = overfit._train(model, Accelerator(), None, 6)
    assert losses[-1] < 0.8 * losses[0]


def test_a_bundle_holds_no_path_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names planted in every place where a check or a package could have them."""
    home = tmp_path / "jdoe_home" / "radiology_smith"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(tmp_path / "jdoe_home"))
    monkeypatch.setenv("USER", "janedoe")
    monkeypatch.setattr(socket, "gethostname", lambda: "pacs07")
    monkeypatch.setattr(socket, "getfqdn", lambda: "pacs07.clinic.example")
    packages = {
        "torch": "2.13+cpu",
        "janedoe-tools": "1.0",
        "numpy": f"2.4 from {home}",
        "own": "1+pacs07.g12",
    }
    monkeypatch.setattr(bundle, "all_packages", lambda: packages.items())
    checks = [
        Check("gpu", "ok", "NVIDIA H200 (140 GiB)"),
        Check("driver", "ok", "module of PACS07"),
        Check("disk", "warning", "/srv/scans/doe.dcm is large", "see https://pytorch.org"),
        Check("mail", "ok", "jane.doe@clinic.example"),
        Check("folder", "ok", "in radiology_smith"),
        Check("user", "ok", "of janedoe"),
    ]
    file = bundle.write_bundle(checks, tmp_path / "b.json")
    text = file.read_text()
    for private in ("jdoe", "janedoe", "smith", "pacs07", "clinic", "/srv", str(tmp_path), "doe"):
        assert private not in text.casefold()
    content = json.loads(text)
    assert content["packages"] == {"torch": "2.13+cpu", "numpy": "(removed)", "own": "(removed)"}
    assert [check["text"] for check in content["checks"]] == ["NVIDIA H200 (140 GiB)", *["(removed)"] * 5]
    assert content["checks"][2]["remedy"] == "see https://pytorch.org"
    assert oct(file.stat().st_mode)[-3:] == "600"


def test_a_bundle_of_this_machine_has_all_packages(tmp_path: Path) -> None:
    content = json.loads(bundle.write_bundle([], tmp_path / "b.json").read_text())
    assert content["packages"]["torch"] == metadata.version("torch")
