"""How many single changes of the modules in which a silent error harms are caught by their own tests.

`python -m tools.mutants [part of a module's path …] [--sample N] [--seed S]`. Ends with 1 below 90 percent.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.mutants.changes import changes_of
from tools.mutants.trial import try_changes

_FOLDER = Path(__file__).parent
_LEAST = 0.9


def main() -> int:
    options = _options()
    modules: dict[str, list[str]] = tomllib.loads((_FOLDER / "modules.toml").read_text())["tests"]
    equivalent = {
        (module, line, edit)
        for module, reasons in tomllib.loads((_FOLDER / "equivalent.toml").read_text()).items()
        for changes in reasons.values()
        for line, edit in changes
    }
    chosen = [m for m in modules if not options.parts or any(part in m for part in options.parts)]
    total: Counter[str] = Counter()
    for module in chosen:
        total += _try_module(module, modules[module], equivalent, options)
    print(_row("all", total), flush=True)
    return 0 if total and _share(total) >= _LEAST else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("parts", nargs="*", help="parts of the paths of the modules to try; all by default")
    parser.add_argument("--sample", type=int, help="changes of each module; all by default")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _try_module(
    module: str, files: Sequence[str], equivalent: set[tuple[str, str, str]], options: argparse.Namespace
) -> Counter[str]:
    changes = changes_of(module, Path(module).read_text(encoding="utf-8"))
    keys = {change.key for change in changes}
    for key in sorted(equivalent):
        if key[0] == module and key not in keys:
            print(f"  no longer a change: {key[1]!r}: {key[2]}")
    if options.sample is not None and options.sample < len(changes):
        changes = random.Random(options.seed).sample(changes, options.sample)
    start = time.monotonic()
    tried = [change for change in changes if change.key not in equivalent]
    outcomes = try_changes(module, files, tried)
    for change, outcome in zip(tried, outcomes, strict=True):
        if outcome != "caught":
            print(f"  {outcome}: {module}:{change.lines.start}: {change.text!r}: {change.edit}")
    counts = Counter("caught" if outcome == "caught" else "survived" for outcome in outcomes)
    counts["equivalent"] = len(changes) - len(tried)
    print(f"{_row(module, counts)}  {time.monotonic() - start:.0f} s", flush=True)
    return counts


def _share(counts: Counter[str]) -> float:
    return counts["caught"] / max(1, counts["caught"] + counts["survived"])


def _row(name: str, counts: Counter[str]) -> str:
    figures = "".join(f"  {counts[outcome]:4d} {outcome}" for outcome in ("caught", "survived", "equivalent"))
    return f"{name:55s}{figures}  {_share(counts):6.1%}"


if __name__ == "__main__":
    sys.exit(main())
