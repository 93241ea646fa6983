"""Parity with other libraries, in an environment that has them: `make peers`. Elsewhere these tests are left out."""

from __future__ import annotations

import importlib.util
import sys

import torch


def _import_torchvision() -> None:
    """A torchvision that was built for another torch still has the transforms that open_clip imports."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _LIBRARIES.append(library)  # its operators are gone when it is
        import torchvision  # noqa: F401


_LIBRARIES: list[torch.library.Library] = []
collect_ignore_glob = [] if importlib.util.find_spec("open_clip") else ["test_*.py"]
if importlib.util.find_spec("torchvision"):
    _import_torchvision()
