"""The changes of one module, tried: which of them its tests notice.

pytest collects once, then forks for each change: the fork exchanges the code of a function and runs the tests
that reach the change. What runs at import (constants, defaults, tables) is imported anew in a fork that has
loaded the libraries, but nothing of the project. The working tree stays as it is.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import pickle
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tools.mutants.changes import Change
from tools.mutants.code import ChangedModule, Functions
from tools.mutants.forks import Fork, in_fork
from tools.mutants.reach import Reach, Recorder

_MIN_SECONDS, _TIMES_SLOWER = 10, 4  # of the processor, after which a changed test is taken to hang


@dataclass
class Trials:
    """What became of the changes of a module."""

    outcomes: list[str | None]  # caught, survived or unreached; None where it must be imported anew
    reach: Reach
    libraries: list[str] = field(default_factory=list)


def try_changes(module: str, files: Sequence[str], changes: Sequence[Change]) -> list[str]:
    """ "caught", "survived" or "unreached" (no test runs the line) for each change.

    Raises: RuntimeError when the tests fail without a change, or with one that changes nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        fork = in_fork(lambda: _run_pytest(files, folder, _Loop(module, changes, Path(folder))))
        answer = Path(folder, "trials")
        if not answer.exists():
            raise RuntimeError(f"{module}: its tests fail without a change:\n{fork.output}")
        trials: Trials = pickle.loads(answer.read_bytes())
    if None in trials.outcomes:
        _preload(trials.libraries)
        _try_anew(module, files, changes, trials)
    return [outcome or "" for outcome in trials.outcomes]


class _Loop:
    """The plugin that takes the place of pytest's loop over the tests."""

    def __init__(self, module: str, changes: Sequence[Change], folder: Path) -> None:
        self.module, self.changes, self.folder = module, changes, folder

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        recorder, measured = Recorder(str(Path(self.module).resolve())), self.folder / "reach"

        def measure() -> int:
            with recorder.tracing():
                failed = _run(session, session.items, recorder)
            measured.write_bytes(pickle.dumps((recorder.reach(), _libraries())))
            return failed

        fork = in_fork(measure)
        print(fork.output)
        if fork.code == 0:
            reach, libraries = pickle.loads(measured.read_bytes())
            outcomes = self._outcomes(session, reach)
            (self.folder / "trials").write_bytes(pickle.dumps(Trials(outcomes, reach, libraries)))
        return True

    def _outcomes(self, session: pytest.Session, reach: Reach) -> list[str | None]:
        functions, items = Functions(self.module), {item.nodeid: item for item in session.items}
        gc.freeze()  # so that collecting garbage in a fork copies no memory
        outcomes: list[str | None] = []
        for change in self.changes:
            pairs, tests = functions.changed(change.tree), reach.tests_of(change.lines)
            patches = None if pairs is None else functions.patches(pairs)
            if pairs is not None and not tests:
                outcomes.append("unreached")
            elif patches is None:
                outcomes.append(None)
            else:
                run = partial(_run_patched, session, [items[test] for test in tests], patches)
                fork = in_fork(run, _limit(reach, tests))
                outcomes.append("caught" if fork.code else "survived")
        return outcomes


def _run_patched(
    session: pytest.Session, items: Sequence[pytest.Item], patches: Sequence[tuple[FunctionType, CodeType]]
) -> int:
    for function, code in patches:
        function.__code__ = code
    return _run(session, items)


def _try_anew(module: str, files: Sequence[str], changes: Sequence[Change], trials: Trials) -> None:
    """Fill the outcomes of the changes that take effect at import."""
    whole = ast.parse(Path(module).read_text(encoding="utf-8"))
    everything = trials.reach.by_time(trials.reach.lines)
    control = _import_changed(module, files, whole, trials.reach, everything)
    if control.code:
        raise RuntimeError(f"{module}: its tests fail when it is imported anew:\n{control.output}")
    for i, change in enumerate(changes):
        if trials.outcomes[i] is None:
            fork = _import_changed(module, files, change.tree, trials.reach, everything)
            trials.outcomes[i] = "caught" if fork.code else "survived"


def _import_changed(
    module: str, files: Sequence[str], tree: ast.Module, reach: Reach, tests: Sequence[str]
) -> Fork:
    with tempfile.TemporaryDirectory() as folder:

        def child() -> int:
            sys.meta_path.insert(0, ChangedModule(module, tree))
            return _run_pytest(files, folder, _Selection(tests))

        return in_fork(child, _limit(reach, tests))


class _Selection:
    """Runs the named tests only, in that order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.place = {test: i for i, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = (item for item in items if item.nodeid in self.place)
        items[:] = sorted(chosen, key=lambda item: self.place[item.nodeid])


def _run(session: pytest.Session, items: Sequence[pytest.Item], recorder: Recorder | None = None) -> int:
    """1 when a test fails; the tests after it are not run."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        with recorder.test(item.nodeid) if recorder else contextlib.nullcontext():
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return 1
    return 0


def _run_pytest(files: Sequence[str], folder: str, plugin: object) -> int:
    options = ["-x", "-q", "-s", "-p", "no:cacheprovider", "--tb=short", f"--basetemp={folder}/tests"]
    # Plugins of pytest are imported before it starts, by `_preload`.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *files], plugins=[plugin]))


def _libraries() -> list[str]:
    """The modules that are loaded and lie outside of the project."""
    here = f"{Path.cwd()}/"
    files = ((name, getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items()))
    return [name for name, file in files if "site-packages" in file or not file.startswith(here)]


def _preload(libraries: Sequence[str]) -> None:
    """Import what the tests need of others, once for all forks."""
    for name in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _limit(reach: Reach, tests: Sequence[str]) -> int:
    return _MIN_SECONDS + _TIMES_SLOWER * ceil(sum(reach.seconds[test] for test in tests))
