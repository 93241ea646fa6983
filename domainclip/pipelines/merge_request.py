"""The options of `merge`, checked before any library is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainclip.errors import RecipeError
from domainclip.pipelines.run_checks import check_run, check_run_model


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """The options of the command."""

    runs: Sequence[Path]
    out: Path
    method: Literal["arithmetic", "ties"] = "arithmetic"
    shares: Sequence[float] = ()  # of each run; empty: equal ones that add up to 1
    density: float = 0.2  # of TIES

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise RecipeError("merge: name at least two run folders")
        for run in self.runs:
            check_run(run)
            check_run_model(run)
        if self.out.exists():
            raise RecipeError(f"--out: {self.out}: exists already; name another folder")
        if self.shares and len(self.shares) != len(self.runs):
            raise RecipeError(
                f"--shares: {len(self.shares)} for {len(self.runs)} runs: give one for each, as 0.5,0.5"
            )

    @property
    def all_shares(self) -> list[float]:
        """The share of each run."""
        return list(self.shares) or [1 / len(self.runs)] * len(self.runs)

    @property
    def reports(self) -> list[Path]:
        """The folder of each run's report, inside `out`: its name, numbered where two are equal."""
        names = [run.resolve().name for run in self.runs]
        return [
            self.out / "eval" / (name if names.count(name) == 1 else f"{name}-{number}")
            for number, name in enumerate(names, start=1)
        ]
