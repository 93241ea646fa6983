"""The page docs/results/leave_one_source_out.md: what travels to hospitals that no training item is from.

    make leave-one-source-out           (some hours on two cores; a run that is there already is not repeated)
    python benchmarks/leave_one_source_out.py --variants plain "built-in recipe" --seeds 0

Every source of the medical corpus in turn is the test split (`corpus.splits.by=source`), and each variant
is trained on the others. The figures lie beside the page, in leave_one_source_out.csv: a cell stays there
until runs with as many seeds replace it. Corpora and weights are not part of the project: DOMAINCLIP_SHARED
names the folder that holds them (default ../shared), with corpora/medical/metadata.csv and
weights/vit-tiny-clip.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.held_out_figures import (
    Cell,
    Figures,
    Row,
    mean_row,
    normal_p,
    read_figures,
    updated,
    values_of,
    write_figures,
)

SHARED = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared"))
RUNS = Path(os.environ.get("DOMAINCLIP_SOURCES", "build/leave_one_source_out"))
TARGET = Path("docs/results/leave_one_source_out.md")
FIGURES = TARGET.with_suffix(".csv")
SOURCE, LABEL, PATIENT = "source_repo", "label", "group_id"  # columns of the corpus
FINDINGS = ("COVID-19", "Pneumonia", "No Finding")
MIN_PATIENTS = 10  # with a finding, and without it: fewer have no AUROC, as in the probe `sources`

# Source 1 names the cause of a pneumonia, or ARDS, which has others too; the sources 2 to 4 name COVID-19.
_PNEUMONIAS = [
    *("COVID-19", "SARS", "Pneumocystis", "Streptococcus", "Klebsiella", "E.Coli", "Varicella"),
    *("Mycoplasma Bacterial Pneumonia", "Legionella", "Lipoid", "Bacterial", "Chlamydophila", "Influenza"),
]
_IMPLIED = {name: ["Pneumonia"] for name in _PNEUMONIAS}
_CLASSES = {name: [f"chest x-ray, {name}"] for name in FINDINGS}
SHARED_KEYS = [
    "corpus.splits.by=source",
    "corpus.columns.split=",
    f"corpus.columns.source={SOURCE}",
    "corpus.columns.acquisition=[view]",
    "corpus.columns.meta=[sex, age]",
    f"corpus.classes={json.dumps(_CLASSES)}",
    f"corpus.implied_classes={json.dumps(_IMPLIED)}",
    "corpus.checks.near_duplicates=warning",
    "corpus.splits.near_duplicates=leave_out",
    "probes={zero_shot: {}}",
]
_FORMS = "{'{}': 'no {}', 'chest x-ray, {}': 'chest x-ray, no {}'}"
_QUESTIONS = f"class_questions: {{forms: {_FORMS}, weight: 2}}"
# Fine-tuning without protection, as in the other results.
_PLAIN = [
    "strategy={locked_image: {}}",
    "objectives={contrastive: {}}",
    "curation={}",
    "train.epochs=10",
    "train.batch_size=128",
    "train.learning_rate=5e-4",
]
_TERMS = f"contrastive: {{}}, {_QUESTIONS}, anchor: {{weight: 100}}"  # of the built-in recipe
_WITHIN = "curation={within_source: {balance_labels: true}}"
VARIANTS: dict[str, list[str]] = {
    "plain": _PLAIN,
    "built-in recipe": [],
    "label captions": [f"objectives={{{_TERMS}, class_captions: {{}}}}"],
    "questions alone": [f"objectives={{{_QUESTIONS}, anchor: {{weight: 100}}}}"],
    "within source": [_WITHIN],
    "source removal": ["source_removal={}"],
    "augmentation": ["train.augmentation=radiograph"],
    "source adversary": [f"objectives={{{_TERMS}, source_adversary: {{}}}}"],
    "locked image": [
        "strategy=locked_image",
        "objectives={contrastive: {}, class_captions: {}, anchor: {weight: 100}}",
        "train={epochs: auto, batch_size: 128, learning_rate: 5e-4}",
        "anchor_texts.per_step=128",
        "weight_interpolation={}",
    ],
    "all together": [
        _WITHIN,
        "source_removal={}",
        "train.augmentation=radiograph",
        f"objectives={{{_TERMS}, source_adversary: {{}}}}",
    ],
}


@dataclass(frozen=True)
class Source:
    """A source by its place in the alphabetical order, with its patients."""

    place: int  # from 1
    patients: Mapping[str, frozenset[str]]  # by finding, of all labels of the source

    @property
    def findings(self) -> list[str]:
        """The findings that enough patients of the source have, and enough do not."""
        measured = []
        for finding in FINDINGS:
            sides: tuple[set[str], set[str]] = (set(), set())
            for label in FINDINGS:
                positive = finding in (label, *_IMPLIED.get(label, ()))
                sides[positive].update(self.patients.get(label, ()))
            if min(map(len, sides)) >= MIN_PATIENTS:
                measured.append(finding)
        return measured

    @property
    def summary(self) -> str:
        """The number of patients of each finding."""
        counts = ((name, len(self.patients.get(name, frozenset()))) for name in FINDINGS)
        return ", ".join(f"{count} {name}" for name, count in counts if count) or "none of the three findings"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description="hold every source of the medical corpus out in turn")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--sources", nargs="+", type=int, help="places in the alphabetical order, from 1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--page-only", action="store_true", help="write the page of the runs that there are")
    arguments = parser.parse_args()
    sources = read_sources(SHARED / "corpora" / "medical" / "metadata.csv")
    # Source after source, all variants of it: a page of whole lines is there early.
    for source in sources:
        chosen = not arguments.sources or source.place in arguments.sources
        if source.findings and chosen and not arguments.page_only:
            for variant in arguments.variants:
                for seed in arguments.seeds:
                    run(source.place, variant, seed)
                write(sources)
    write(sources)
    print(TARGET)


def write(sources: Sequence[Source]) -> None:
    """Write the figures and the page, with every run that there is here."""
    figures = updated(read_figures(FIGURES), measured_here(sources, RUNS))
    order = [*VARIANTS]
    in_order = sorted(figures.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
    write_figures(FIGURES, dict(in_order))
    TARGET.write_text(page(sources, figures), encoding="utf-8")


def read_sources(table: Path) -> list[Source]:
    """The sources of the corpus in their alphabetical order."""
    patients: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            patients[row[SOURCE]][row[LABEL]].add(row[PATIENT])
    return [
        Source(place, {label: frozenset(who) for label, who in patients[name].items()})
        for place, name in enumerate(sorted(patients), start=1)
    ]


def folder_of(runs: Path, place: int, variant: str, seed: int) -> Path:
    """The folder of a run."""
    return runs / f"source-{place}" / f"{variant.replace(', ', '-').replace(' ', '-')}-seed{seed}"


def command_of(place: int, variant: str, seed: int) -> list[str]:
    """The command of a run, or of what is left of it."""
    folder = folder_of(RUNS, place, variant, seed)
    command = [sys.executable, "-m", "domainclip", "finetune", "-r", "medical_xray", "--run-dir", str(folder)]
    if (folder / "recipe.yaml").exists():
        command.append("--resume")
    corpus, base = SHARED / "corpora" / "medical", SHARED / "weights" / "vit-tiny-clip"
    return [
        *(*command, f"corpus.path={corpus}", f"base={base}", f"train.seed={seed}"),
        *(*SHARED_KEYS, f"corpus.splits.test_source={place}", *VARIANTS[variant]),
    ]


def run(place: int, variant: str, seed: int) -> None:
    """One run, unless it is complete; one that fails leaves the others."""
    if (folder_of(RUNS, place, variant, seed) / "results.json").exists():
        return
    command = command_of(place, variant, seed)
    print("→", " ".join(command), file=sys.stderr, flush=True)
    # One secret for all, so that pseudonyms, and with them the order of groups, are the same anywhere.
    subprocess.run(command, check=False, env=os.environ | {"DOMAINCLIP_SECRET": "results"})


def results_of(runs: Path, place: int, variant: str) -> dict[int, list[dict[str, Any]]]:
    """The metrics of each complete run of a variant, by seed."""
    found = {}
    for file in sorted(folder_of(runs, place, variant, 0).parent.glob("*/results.json")):
        seed = file.parent.name.rpartition("-seed")[2]
        if file.parent == folder_of(runs, place, variant, int(seed)):
            found[int(seed)] = json.loads(file.read_text(encoding="utf-8"))["results"]
    return found


def row_of(
    results: Mapping[int, Sequence[Mapping[str, Any]]], probe: str, dataset: str, metric: str
) -> Row | None:
    """A metric of a variant: that of one seed, or the mean over the seeds; None where it is not measured.

    The interval over several seeds is the mean of theirs, since seeds share their test items and make no
    estimate more certain; p is of that interval.
    """
    rows = [
        Row(r["base"]["value"], r["adapted"]["value"], d["value"], d["low"], d["high"], d["p"])
        for of_seed in results.values()
        for r in of_seed
        for d in (r["difference"],)
        if (r["probe"], r["dataset"], r["metric"]) == (probe, dataset, metric)
        and d is not None
        and None not in (d["low"], d["high"], d["p"])
    ]
    if not rows:
        return None
    means = [sum(values) / len(rows) for values in zip(*map(values_of, rows), strict=True)]
    base, adapted, difference, low, high = means[:5]
    error = (high - low) / 2 / 1.96
    p = rows[0].p if len(rows) == 1 else normal_p(difference, error)
    return Row(base, adapted, difference, low, high, p)


def measured_here(sources: Sequence[Source], runs: Path) -> Figures:
    """The cells of the runs in a folder."""
    cells: Figures = {}
    for source in sources:
        for variant in VARIANTS:
            results = results_of(runs, source.place, variant)
            row = row_of(results, "sources", "test", "auroc_within_sources")
            general = row_of(results, "zero_shot", "general", "accuracy")
            if row is not None:
                cells[source.place, variant] = Cell(
                    tuple(sorted(results)), row, None if general is None else general.difference
                )
    return cells


def page(sources: Sequence[Source], figures: Figures) -> str:
    """The page, with every cell that is measured."""
    measured = [source for source in sources if source.findings]
    left_out = [source for source in sources if not source.findings]
    return "\n".join([HEAD, *_sources(measured, left_out), *_table(measured, figures)])


def _sources(measured: Sequence[Source], left_out: Sequence[Source]) -> Iterator[str]:
    yield "| source | patients | AUROC of |"
    yield "|---|---|---|"
    for source in measured:
        yield f"| {source.place} | {source.summary} | {', '.join(source.findings)} |"
    for source in left_out:
        yield f"| {source.place} | {source.summary} | not measurable |"
    yield ""


def _table(sources: Sequence[Source], figures: Figures) -> Iterator[str]:
    """The macro AUROC of all variants on each source; then general accuracy, mean over the sources."""
    head = [f"source {source.place}" for source in sources]
    yield "| variant | " + " | ".join(head) + " | mean | retention: accuracy |"
    yield "|---|" + "--:|" * (len(head) + 2)
    bases: dict[int, float] = {}
    lines = []
    for variant in VARIANTS:
        of_variant = [figures.get((source.place, variant)) for source in sources]
        bases |= {s.place: cell.row.base for s, cell in zip(sources, of_variant, strict=True) if cell}
        complete = [cell.row for cell in of_variant if cell is not None]
        general = [cell.general for cell in of_variant if cell is not None and cell.general is not None]
        cells = [cell.row.cell() if cell else "not measured" for cell in of_variant]
        cells.append(mean_row(complete).cell() if len(complete) == len(sources) else "not measured")
        cells.append(f"{sum(general) / len(general):+.3f}" if general else "not measured")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    base = [f"{bases[source.place]:.3f}" if source.place in bases else "not measured" for source in sources]
    known = [bases[source.place] for source in sources if source.place in bases]
    mean = f"{sum(known) / len(known):.3f}" if len(known) == len(sources) else "not measured"
    yield f"| base | {' | '.join(base)} | {mean} | |"
    yield from lines
    yield ""


HEAD = f"""# One source held out

Made by `make leave-one-source-out` (benchmarks/leave_one_source_out.py). In the medical corpus the finding
is tangled with the source: a model that recognises the hospital names the finding, and fails elsewhere. So
every source is the test split in turn (`corpus.splits.by=source`), and the variants learn from the others.
The base is a small CLIP (ViT-Ti/16, 22.5 M weights).

Each cell has the macro AUROC of the adapted model on all images of the held-out source, over the findings
that {MIN_PATIENTS} of its patients have and {MIN_PATIENTS} do not have, and in brackets its difference from
the base with the 95 % interval and p, resampling patients: the metric "AUROC within sources" of the probe
`sources`. COVID-19 and the other causes that the sources name imply "Pneumonia" (`corpus.implied_classes`):
the sources 1 to 4 would teach that COVID-19 is none, and an image would count as less of a pneumonia because
it looks like COVID-19. The mean weighs the sources equally; they share no patient, so the variance is that of
independent values. Prompts are "chest x-ray, FINDING" for three findings. Images that are nearly the same
as one of the held-out source are left out of training (`corpus.splits.near_duplicates=leave_out`). No value
is corrected for the number of variants: with {len(VARIANTS)} of them, p ≤ 0.05 of one alone shows little.
The last column is the mean change of the accuracy on general photos.

*Plain* and *built-in recipe* are those of [results.md](results.md). The built-in recipe learns captions, and
each finding as a yes-or-no question (`class_questions`); the others change it: *label captions* has a prompt
of the finding as a second caption (`class_captions`), *questions alone* has no captions. *Within source*
draws a batch from one source and repeats rare labels of a source; *source removal* takes the direction of the
source out of the embeddings after training; *augmentation* is that of radiographs; *source adversary* hides
the source from a classifier during training. *Locked image* trains the text tower alone, with captions and
label captions. *All together* has the four against the source. Several seeds in a cell are their mean, with
the mean of their intervals, and p of that. With 12 and 18 patients without a finding, the sources 1 and 2
cannot show a difference below about 0.2. The exact overrides are in the script.

*Augmentation* travels, on the source that can show it: in each epoch border, grey scale, sharpness and
resolution are others, so that less of the hospital is left to learn. Its p on source 5, times the number of
variants, stays below 0.01. *Source adversary* may travel as well (one seed). The built-in recipe has neither
yet: what they cost on the mixed split, and what both together reach, is to be measured first. *Source
removal* forgets more than those that protect the base.

Of the rest little travels, and probably for this reason: without source 5, 33 patients without a finding are
left to learn from, of three sources, beside 376 with COVID-19; and the findings of source 5 were read out of
reports by a program [arXiv:1705.02315]. Label captions contrast the findings with each other, and among the
training items the source tells them apart; a question about one finding is asked within a source as well.
"""


if __name__ == "__main__":
    main()
