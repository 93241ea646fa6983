"""Python, the packages that domainclip requires, and the reachability of the Hub."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from domainclip import __version__
from domainclip.config.offline import is_offline
from domainclip.pipelines.doctor.check import Check

_OLDEST_PYTHON = (3, 11)
_SHOWN = ("torch", "transformers", "accelerate", "peft", "datasets")
_HUB = "https://huggingface.co"
_SECONDS = 10


def python_check() -> Check:
    """The version of Python, and the kind of machine."""
    text = (
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, domainclip {__version__}"
    )
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check("python", "fault", text, "use Python 3.11 or newer")
    return Check("python", "ok", text)


def package_checks() -> list[Check]:
    """One line for the required packages, and one for each that is missing or too old."""
    try:
        required = [Requirement(line) for line in metadata.requires("domainclip") or []]
    except metadata.PackageNotFoundError:
        text = "domainclip is not installed as a package"
        return [Check("packages", "warning", text, "pip install domainclip")]
    faults, fine = list[Check](), dict[str, str]()
    for requirement in required:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            text = f"{requirement.name} is {version or 'not installed'}, required is {requirement.specifier}"
            faults.append(Check("packages", "fault", text, f"pip install -U '{requirement}'"))
        else:
            fine[requirement.name] = version
    shown = ", ".join(f"{name} {fine[name]}" for name in _SHOWN if name in fine)
    return [Check("packages", "ok", f"{len(fine)} as required: {shown}"), *faults]


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def all_packages() -> Iterator[tuple[str, str]]:
    """Name and version of every installed package."""
    seen = {str(one.metadata["Name"]): one.version for one in metadata.distributions()}
    yield from sorted(seen.items())


def hub_check() -> Check:
    """Whether the Hub answers; it is asked for one page, without a token."""
    import urllib.error
    import urllib.request

    if is_offline():
        return Check("hub", "warning", "not asked: --offline forbids it", "leave --offline out")
    request = urllib.request.Request(f"{_HUB}/robots.txt", headers={"User-Agent": "domainclip"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return Check("hub", "ok", f"{_HUB} answers ({answer.status})")
    except (OSError, ValueError) as error:
        reason = type(getattr(error, "reason", error)).__name__
        return Check(
            "hub",
            "fault",
            f"{_HUB} cannot be reached ({reason})",
            "check network and proxy (HTTPS_PROXY), or copy models to this machine and work with --offline",
        )
