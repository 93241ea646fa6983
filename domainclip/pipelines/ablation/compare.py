"""Run what is not complete, and compare all models in one table: for `ablate`, and for several seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainclip.errors import DomainclipError
from domainclip.pipelines.ablation import runs
from domainclip.pipelines.ablation.measure import measure_ablation_baseline
from domainclip.pipelines.ablation.plan import Ablation
from domainclip.pipelines.ablation.runs import Ended
from domainclip.pipelines.ablation.table import make_table, record_base
from domainclip.report import writer
from domainclip.report.ablation_results import AblationTable
from domainclip.report.closing import ablation_lines


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the runs are started, and what the report calls the command."""

    jobs: int = 1  # runs at the same time
    processes: int | None = None  # of each run
    quiet: bool = False
    command: str = ""

    def say(self, text: str) -> None:
        """Print a line of progress, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def run_and_compare(
    ablation: Ablation, folder: Path, execution: Execution, begin: Callable[[], object] = lambda: None
) -> tuple[AblationTable, list[Ended]]:
    """Measure the base, call `begin`, run what is not complete, and compare: the table, and each run's end.

    Raises: RecipeError for a folder of another run; Interrupted after a signal; DomainclipError when no run
    is complete.
    """
    for run in ablation.runs:  # a folder of another run fails now, not after the first hours
        runs.is_complete(run)
    baseline = measure_ablation_baseline(ablation)
    for line in baseline.inputs.guesses:
        execution.say(line)
    begin()
    record_base(baseline, folder)
    ended = runs.run_all(
        ablation.runs,
        jobs=execution.jobs,
        processes=execution.processes,
        quiet=execution.quiet,
        say=execution.say,
    )
    runs.check_any_complete(ended)
    return make_table(baseline, ended, folder, execution.command), ended


def report(
    table: AblationTable, ended: Sequence[Ended], folder: Path, name: str, execution: Execution
) -> Path:
    """Write the files of the table under a name, and print its first lines; the page's path.

    Raises: DomainclipError that names the runs that failed, with the exit code of the first.
    """
    page = writer.write_ablation(folder, table, name)
    for line in ablation_lines(table):
        execution.say(line)
    failed = [end for end in ended if end.error]
    if failed:
        names = ", ".join(end.run.folder.name for end in failed)
        fault = DomainclipError(
            f"{len(failed)} of {len(ended)} runs failed: {names}; the others stand in {page}"
        )
        fault.code = runs.exit_code(failed[0])
        raise fault
    return page
