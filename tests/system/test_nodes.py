"""One run over two machines: two launchers with different host settings, started as a user types them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _machine(folder: Path, rank: int) -> dict[str, str]:
    """The environment of one machine: its own home, disk for temporary files and cache."""
    place = folder / f"machine{rank}"
    for name in ("home", "tmp", "cache"):
        (place / name).mkdir(parents=True)
    return os.environ | {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "DOMAINCLIP_CACHE": str(place / "cache"),
        "HOSTNAME": f"node{rank}",
        "OMP_NUM_THREADS": "1",
    }


def test_two_machines_train_what_one_process_does(recipe_file: Path, tmp_path: Path) -> None:
    words = ["finetune", "-q", "-r", str(recipe_file), "train.epochs=2", "train.precision=fp32"]
    command = [sys.executable, "-m", "domainclip", *words]
    alone, together, port = tmp_path / "alone", tmp_path / "together", _free_port()
    started = []
    for rank in (1, 0):
        options = ["--nodes", "2", "--node-rank", str(rank), "--master", f"127.0.0.1:{port}"]
        started.append(
            subprocess.Popen(
                [*command, "--run-dir", str(together), *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=_machine(tmp_path, rank),
            )
        )
    outputs = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    subprocess.run([*command, "--run-dir", str(alone)], check=True, env=_machine(tmp_path, 2), timeout=600)
    assert json.loads((together / "environment.json").read_text())["processes"] == 2
    assert [output.count("report.html") for output, _ in outputs] == [0, 1]  # the first machine alone prints
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, together))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=2e-3), name
    steps = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (alone, together)
    ]
    assert torch.allclose(*map(torch.tensor, steps), atol=1e-4)
