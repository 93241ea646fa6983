"""The run folder: find or create it, and write what a run needs to be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.data import prepared_format
from domainclip.data.corpus import Corpus
from domainclip.distributed import collectives, nodes
from domainclip.distributed.collectives import first_process
from domainclip.distributed.folder_lock import FolderLock
from domainclip.errors import RecipeError
from domainclip.evaluation import contamination, run_classes
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.split_usage import Measured, evaluation_of, record_split_usage
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.saving import save_model
from domainclip.pipelines.locate import next_run_folder
from domainclip.report.provenance import environment
from domainclip.training.run_context import RunOptions

_SHARED_SECONDS = 5.0  # until a folder that one machine makes is seen on the others


@contextmanager
def locked_run_folder(name: str, options: RunOptions) -> Iterator[Path]:
    """Make and lock the folder to write to, by default the next free one.

    Raises: RecipeError for a folder that another command uses, that cannot be written, or that holds a run
    already, unless it is resumed.
    """
    held: list[FolderLock] = []
    folder = collectives.on_first_process(partial(_lock_run_folder, name, options, held))
    try:
        nodes.refuse_unshared(folder, collectives.gather_objects(_is_visible(folder)))
        yield folder
    finally:
        for lock in held:
            lock.release()


def _is_visible(folder: Path) -> bool:
    """Whether this process sees the folder; a shared disk may show a new one a little later."""
    until = time.monotonic() + _SHARED_SECONDS
    while not folder.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _lock_run_folder(name: str, options: RunOptions, held: list[FolderLock]) -> Path:
    folder = options.folder or next_run_folder(Path("runs"), name)
    with _writing(folder):
        held.append(FolderLock(folder).acquire(new=options.folder is None))
    if not options.resume and (folder / "recipe.yaml").exists():
        held.pop().release()
        raise RecipeError(
            f"{folder}: holds a run already; continue it with --resume or name another --run-dir"
        )
    return folder


@first_process
def record_baseline(
    folder: Path, sets: Sequence[EvaluationSet], evaluation: Evaluation, encoder: CachedEncoder
) -> None:
    """Make the run folder, in which no run has begun yet, and record that the base was measured on the sets.

    Raises: RecipeError when the folder cannot be written.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "environment.json").write_text(json.dumps(environment(), indent=1), encoding="utf-8")
    base = Measured(evaluation_of(folder, sets[0].split), base=[encoder.model.fingerprint("all")])
    record_split_usage(sets, evaluation, base, folder)


@first_process
def begin_run(folder: Path, recipe: Recipe, record: TrainingRecord | None, corpus: Corpus) -> None:
    """Write the resolved recipe, which gives the same run again, the record of the images, and the classes.

    From here on the run can be resumed.

    Raises: RecipeError or ModelError when the folder cannot be written.
    """
    write_recipe(folder, recipe)
    if record is not None:
        contamination.save(folder, record)
    with _writing(folder):
        run_classes.save(folder, run_classes.of_corpus(corpus))


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe with every default, whole or not at all.

    Raises: RecipeError when the folder cannot be written.
    """
    with _writing(folder):
        prepared_format.write_atomically(folder / "recipe.yaml", recipe.resolved().encode())


@first_process
def save_adapted_model(model: DualEncoder, folder: Path) -> None:
    """Write the model to the run folder."""
    (folder / "model" / run_classes.FILE).unlink(missing_ok=True)  # of other weights
    save_model(model, folder / "model")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: name another folder") from None
