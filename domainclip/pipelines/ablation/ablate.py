"""The command `ablate`: train the variants of a recipe with several seeds, and compare them in one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from domainclip.distributed.folder_lock import locked_folder
from domainclip.errors import DomainclipError
from domainclip.pipelines.ablation import plan, runs
from domainclip.pipelines.ablation.final import measure_chosen
from domainclip.pipelines.ablation.measure import measure_ablation_baseline
from domainclip.pipelines.ablation.plan import Ablation
from domainclip.pipelines.ablation.table import make_table, record_base
from domainclip.report import writer
from domainclip.report.choice_phrasing import choice_in_words
from domainclip.report.closing import ablation_lines


def ablate(
    file: Path | str,
    changes: Sequence[str] = (),
    folder: Path | None = None,
    *,
    jobs: int = 1,
    processes: int | None = None,
    quiet: bool = False,
    command: str = "",
    final: bool = False,
) -> Path:
    """Run what a plan names and is not complete, and write the table; the page's path.

    The variants are compared on the validation split. With `final`, the one that it chooses is then measured
    on the test split, and the path is that of its page; without, no test item is read.

    Raises: RecipeError for a wrong plan, before anything is trained; Interrupted after a signal: the same
    call goes on from there; DomainclipError, after the table is written, when runs failed.
    """
    ablation = plan.load(str(file), changes, folder)
    folder = ablation.runs[0].folder.parent
    with locked_folder(folder, "name another --run-dir"):
        return _run_and_compare(
            ablation, folder, jobs=jobs, processes=processes, quiet=quiet, command=command, final=final
        )


def _run_and_compare(
    ablation: Ablation,
    folder: Path,
    *,
    jobs: int,
    processes: int | None,
    quiet: bool,
    command: str,
    final: bool,
) -> Path:

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    for run in ablation.runs:  # a folder of another run fails now, not after the first hours
        runs.is_complete(run)
    baseline = measure_ablation_baseline(ablation)
    record_base(baseline, folder)
    ended = runs.run_all(ablation.runs, jobs=jobs, processes=processes, quiet=quiet, say=say)
    runs.check_any_complete(ended)
    table = make_table(baseline, ended, folder, command)
    page = writer.write_ablation(folder, table)
    for line in ablation_lines(table):
        say(line)
    failed = [end for end in ended if end.error]
    if failed:
        names = ", ".join(end.run.folder.name for end in failed)
        fault = DomainclipError(
            f"{len(failed)} of {len(ended)} runs failed: {names}; the others stand in {page}"
        )
        fault.code = runs.exit_code(failed[0])
        raise fault
    if not final:
        return page
    if table.choice is None or table.choice.variant is None:
        say(f"--final: nothing is measured on the test split: {choice_in_words(table)[0]}")
        return page
    return measure_chosen(ablation, ended, table.choice, folder, command)
