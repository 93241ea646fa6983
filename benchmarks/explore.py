"""Time of an answer of `explore`, for each kind of request, on the items of a run.

    python -m benchmarks.explore runs/pets-1 --split train

Each kind is asked with another question every time, so that no answer is remembered; the encoding of typed
texts by both models is included, the browser is not. Processor time is that of an idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from domainclip.inference.explorer.application import Application
from domainclip.inference.explorer.view import View
from domainclip.pipelines.explore import ExploreRequest, open_page

ROUNDS = 9


def requests(page: Application) -> dict[str, Callable[[int], tuple[str, View]]]:
    """A path and a view for each round, by kind of request."""
    names = page.explorer.class_names
    last = page.explorer.explored.size - 1
    return {
        "the first list": lambda i: ("", View(start=24 * i)),
        "a filter": lambda i: ("", View(label=names[i % len(names)] if names else "", order="gain")),
        "a search by words": lambda i: ("", View(words=f"an image with {i} people")),
        "similar items": lambda i: ("", View(like=min(i, last))),
        "an item": lambda i: ("", View(page="item", row=min(i, last))),
        "the map": lambda i: ("", View(page="map", label=names[i % len(names)] if names else "")),
        f"{len(names)} classes in another template": lambda i: (
            "",
            View(page="prompts", templates=f"image {i} of {{}}"),
        ),
        "answers as captions": lambda i: ("", View(kind="captions", start=24 * i)),
        "the whole table": lambda i: ("selection.csv", View(order="loss" if i % 2 else "gain")),
    }


def measured(page: Application, question: Callable[[int], tuple[str, View]]) -> np.ndarray:
    """(rounds, 2) milliseconds of each round, by the clock and of processor time."""
    times = []
    for i in range(ROUNDS):
        path, view = question(i)
        query = view.address().removeprefix("?")
        began, worked = time.perf_counter(), time.process_time()
        reply = page(path, query)
        times.append([1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)])
        assert reply is not None
        assert reply.status == 200, reply.body
    return np.array(times)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("run")
    options.add_argument("--split", default="validation")
    arguments = options.parse_args()
    opened = open_page(ExploreRequest(run=arguments.run, split=arguments.split))
    page = opened.server.answer
    assert isinstance(page, Application)
    print(f"{opened.explored.size} items\n")
    print("| request | median, ms | slowest, ms | median of processor time, ms |")
    print("|---|---|---|---|")
    for kind, question in requests(page).items():
        times = measured(page, question)
        (clock, work), slowest = np.median(times, axis=0), times[:, 0].max()
        print(f"| {kind} | {clock:.0f} | {slowest:.0f} | {work:.0f} |", flush=True)


if __name__ == "__main__":
    main()
