"""The provenance of the results, as pairs of label and value: run, data, protocol and null controls."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import torch

from domainclip import __version__, registry
from domainclip.distributed import collectives
from domainclip.evaluation.controls import NullControl
from domainclip.evaluation.evaluate import Evaluation
from domainclip.report import phrasing
from domainclip.report.context import CorpusFacts, ReportContext, RunFacts

Pairs = list[tuple[str, str]]
_SEPARATE = ("reliability", "prompts")  # details that have a chart or a table
ONE_RUN = "one: the intervals hold the luck of the items, and not that of the seed (train.seeds=3 has both)"


def run(run: RunFacts | None) -> Pairs:
    """The training run; empty if only finished models were measured."""
    if run is None:
        return []
    share = run.learning / max(1, run.weights)
    rows = [
        ("Strategy", run.strategy.replace("_", " ")),
        ("Trained parameters", f"{run.learning:,} of {run.weights:,} ({share:.2%})"),
        ("Steps", f"{run.steps:,} of {run.batch_size} pairs"),
        ("Time", f"{phrasing.duration(run.seconds)} on {run.device}"),
        *((label(key), text(value)) for key, value in run.facts.items()),
    ]
    if run.versions:
        rows.append(("Versions", _versions(run.versions)))
    return rows


def corpus(facts: CorpusFacts) -> dict[str, Any]:
    """A corpus: its card, sizes of splits, and counts of items that were left out."""
    rows = [("Card", facts.card), ("Licence", facts.license), ("Fingerprint", facts.fingerprint[:16])]
    return {
        "name": facts.name,
        "facts": [(key, value) for key, value in rows if value],
        "splits": [(name, f"{items:,}", f"{groups:,}") for name, (items, groups) in facts.splits.items()],
        "quarantine": [(reason, f"{count:,}") for reason, count in facts.quarantine.items()],
        "remarks": [*facts.findings, *facts.notes],
    }


def measuring(evaluation: Evaluation, context: ReportContext) -> Pairs:
    """The statistical method, the training overlap, and how often the split was measured."""
    usages = [str(context.readings)] if context.readings else []
    return [
        (
            "Intervals",
            "95 %, from a bootstrap over groups, as wide as Student's t; the same resamples for all models",
        ),
        *((("Training runs", ONE_RUN),) if context.run or context.adapted else ()),
        ("Resamples", f"{evaluation.resamples:,}, seed {evaluation.seed}"),
        (
            "Significant difference",
            "the interval of the paired difference excludes zero and p ≤ 0.05; for classes and languages, "
            "both after Bonferroni's correction",
        ),
        *((("Precision", context.precision),) if context.precision else ()),
        *(("Training data", overlap) for overlap in context.trained_on),
        *(("Test-set use", f"{usage}, as recorded on this machine") for usage in usages),
        *((("Software", _versions(context.versions)),) if context.versions else ()),
    ]


def controls(evaluation: Evaluation) -> Pairs:
    """The null controls: how often the same procedure reports a difference where there is none."""
    return [(_control_name(control), _control_result(control)) for control in evaluation.controls]


def _control_name(control: NullControl) -> str:
    return f"{phrasing.probe_name(control.probe)} {phrasing.metric_name(control.metric)} on {control.dataset}"


def _control_result(control: NullControl) -> str:
    significant = round(control.share * control.swaps)
    return (
        f"base against itself: {control.itself}; models swapped at random, group by group: a significant "
        f"difference in {significant} of {control.swaps} swaps (one in twenty is expected)"
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def protocol(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One probe on one set: its source, options and prompts."""
    details = {key: value for key, value in entry["details"].items() if key not in _SEPARATE}
    changed = {
        f"{key}, adapted": value
        for key, value in entry.get("adapted_details", {}).items()
        if key not in _SEPARATE
    }
    prompts = entry["details"].get("prompts", {})
    pairs = [
        (
            "Items",
            str(entry["items"]) + (f", {entry['unreadable']} unreadable" if entry["unreadable"] else ""),
        ),
        ("Headline", phrasing.metric_name(entry["primary"])),
        ("Source", f"{entry['citation']}, version {entry['version']} of the probe"),
        *((label(key), text(value)) for key, value in (details | changed).items()),
    ]
    if entry["chance"]:
        shown = (
            f"{phrasing.metric_name(name)} {value:.3g}" for name, value in entry["chance"].items() if value
        )
        pairs.append(("Chance", ", ".join(shown)))
    title = f"{phrasing.probe_name(entry['probe'])} on {entry['dataset']}"
    prompt_rows = [(name, "; ".join(p["positive"]), "; ".join(p["negative"])) for name, p in prompts.items()]
    return {"title": title, "facts": [(key, value) for key, value in pairs if value], "prompts": prompt_rows}


def label(key: str) -> str:
    """The label of a key."""
    return key.replace("_", " ").capitalize()


def text(value: Any) -> str:
    """A value of the protocol as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        nested = ((key, text(inner), isinstance(inner, Mapping)) for key, inner in value.items())
        return ", ".join(f"{key} ({inner})" if deep else f"{key} {inner}" for key, inner, deep in nested)
    return ", ".join(map(text, value)) if isinstance(value, (list, tuple)) else str(value)


LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "pydicom", "pillow", "numpy")


def environment() -> dict[str, Any]:
    """Versions and device, without user, host or path."""
    return {
        "domainclip": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "processes": collectives.process_count(),
        "threads": torch.get_num_threads(),
        "libraries": {
            name: importlib.metadata.version(name) for name in (*LIBRARIES, *registry.plugin_packages())
        },
    }


def versions() -> dict[str, str]:
    """Versions of the software, by name."""
    facts = environment()
    return {"domainclip": facts["domainclip"], "python": facts["python"], **facts["libraries"]}
