"""Devices, precision, memory, shared memory and disk space."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import torch

from domainclip import disk_cache
from domainclip.config.training import TrainConfig
from domainclip.data.process_pool import available_cores
from domainclip.pipelines.doctor.check import Check
from domainclip.training.precision import mixed_precision

_GIB = 2**30
_SHARED = Path("/dev/shm")
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of a mean of 64 products


def device_checks() -> list[Check]:
    """The processors, the GPUs with their memory, and the types that they compute in."""
    cores = Check("cpu", "ok", f"{available_cores()} cores, {torch.get_num_threads()} threads of torch")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        named = ", ".join(f"{card.name} ({card.total_memory / _GIB:.0f} GiB)" for card in cards)
        return [cores, Check("gpu", "ok", named), precision_check("cuda")]
    if shutil.which("nvidia-smi"):
        text, remedy = (
            "a driver is installed, but torch does not use it",
            "install torch for CUDA: pytorch.org",
        )
        return [cores, Check("gpu", "warning", text, remedy), precision_check("cpu")]
    return [cores, Check("gpu", "ok", "none: training runs on the processor"), precision_check("cpu")]


def precision_check(device: str) -> Check:
    """The product of two matrices in each type, against the same in 64 bits."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.rand(64, 64, generator=draw, dtype=torch.float64) for _ in range(2))
    expected, good, wrong = left @ right / 64, list[str](), list[str]()
    for kind, tolerance in _TOLERANCE.items():
        name = str(kind).removeprefix("torch.")
        try:
            product = (left.to(device, kind) @ right.to(device, kind)).cpu().double() / 64
        except RuntimeError:  # a type that this device does not have
            continue
        near = (product - expected).abs().max().item() <= tolerance
        (good if near else wrong).append(name)
    if wrong:
        remedy = "train with train.precision=fp32, and check the driver"
        return Check("precision", "fault", f"wrong products in {', '.join(wrong)}", remedy)
    auto = {"no": "fp32"}.get(mode := mixed_precision(TrainConfig()), mode)
    return Check("precision", "ok", f"{', '.join(good)}; train.precision=auto is {auto}")


def memory_checks() -> list[Check]:
    """Main memory, and that which worker processes share."""
    memory = psutil.virtual_memory()
    free, total = memory.available / _GIB, memory.total / _GIB
    remedy = "" if free >= 4 else "end other programs, or set train.micro_batch_size and train.workers=0"
    level = "ok" if free >= 4 else "warning" if free >= 1 else "fault"
    checks = [Check("memory", level, f"{free:.1f} of {total:.1f} GiB free", remedy)]  # type: ignore[arg-type]
    if _SHARED.is_dir():
        size = shutil.disk_usage(_SHARED).free / _GIB
        few = size < 0.25  # a container has 64 MiB by default
        remedy = "start the container with --shm-size=2g, or set train.workers=0" if few else ""
        checks.append(Check("shared memory", "warning" if few else "ok", f"{size:.1f} GiB free", remedy))
    return checks


def disk_checks() -> list[Check]:
    """Free space and permission to write, in the folders that a run writes to; they are not named."""
    places = {
        "disk cache": (disk_cache.root(), "name another folder with DOMAINCLIP_CACHE"),
        "working folder": (Path.cwd(), "start in another folder, or name one with --run-dir"),
        "temporary folder": (Path(tempfile.gettempdir()), "name another folder with TMPDIR"),
    }
    return [disk_check(name, folder, remedy) for name, (folder, remedy) in places.items()]


def disk_check(name: str, folder: Path, remedy: str) -> Check:
    """One folder, or the nearest one above it that exists."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free / _GIB
    if not os.access(existing, os.W_OK):
        return Check(name, "fault", "cannot be written", remedy)
    if free < 5:
        level = "fault" if free < 0.5 else "warning"
        return Check(name, level, f"{free:.1f} GiB free", f"free some space, or {remedy}")  # type: ignore[arg-type]
    return Check(name, "ok", f"{free:.0f} GiB free")
