"""Seconds until the command line answers. See README.md.

python benchmarks/startup.py [--times 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

VERBS = (["--help"], ["recipes", "list"], ["finetune", "--help"])


def main() -> None:
    """Prints the median of some starts of each, and Python's own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    print("| command | median, s | fastest, s |\n|---|---|---|")
    for verb in VERBS:
        _line(f"domainclip {' '.join(verb)}", [sys.executable, "-m", "domainclip", *verb], times)
    _line("python -c pass", [sys.executable, "-c", "pass"], times)


def _line(name: str, command: list[str], times: int) -> None:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    print(f"| `{name}` | {statistics.median(taken):.2f} | {min(taken):.2f} |")


if __name__ == "__main__":
    main()
