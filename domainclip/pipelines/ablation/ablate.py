"""The command `ablate`: train the variants of a recipe with several seeds, and compare them in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainclip.distributed.folder_lock import locked_folder
from domainclip.pipelines.ablation import plan
from domainclip.pipelines.ablation.compare import Execution, report, run_and_compare
from domainclip.pipelines.ablation.final import measure_chosen
from domainclip.report.choice_phrasing import choice_in_words


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
    execution = Execution(jobs=jobs, processes=processes, quiet=quiet, command=command)
    with locked_folder(folder, "name another --run-dir"):
        table, ended = run_and_compare(ablation, folder, execution)
        page = report(table, ended, folder, "ablation", execution)
        if not final:
            return page
        if table.choice is None or table.choice.variant is None:
            execution.say(f"--final: nothing is measured on the test split: {choice_in_words(table)[0]}")
            return page
        return measure_chosen(ablation, ended, table.choice, folder, execution)
