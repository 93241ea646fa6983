"""All checks of `doctor`, in order; one that fails itself is a fault, and the others still run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from domainclip.pipelines.doctor import decoders, environment, hardware, overfit
from domainclip.pipelines.doctor.check import Check

_Part = Callable[[], Check | list[Check]]


def examine(*, hub: bool = False, train: bool = True) -> Iterator[Check]:
    """Yield each check as it is done; `hub` asks the Hub, `train` runs the overfit check."""
    parts: dict[str, _Part] = {
        "python": environment.python_check,
        "packages": environment.package_checks,
        "decoders": decoders.decoder_checks,
        "devices": hardware.device_checks,
        "memory": hardware.memory_checks,
        "disk": hardware.disk_checks,
        **({"hub": environment.hub_check} if hub else {}),
        **({"overfit": overfit.overfit_check} if train else {}),
    }
    for name, part in parts.items():
        try:
            found = part()
        except Exception as error:  # of any kind: this is what is looked for
            text = f"the check failed ({type(error).__name__})"
            found = Check(name, "fault", text, "report it with --bundle FILE")
        yield from found if isinstance(found, list) else [found]
