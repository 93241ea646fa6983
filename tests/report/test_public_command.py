"""The command line is part of a report, without local paths."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from domainclip.report.redaction import public_command

SHOWN = [
    ("eval runs/Smith_John --against base", "eval (local) --against base"),
    ("eval openai/clip-vit --out out/Smith_John", "eval openai/clip-vit --out (local)"),
    ("eval openai/clip-vit --out=out/Smith_John", "eval openai/clip-vit --out=(local)"),
    ("finetune -r medical --run-dir runs/Smith", "finetune -r medical --run-dir (local)"),
    (
        "finetune --nodes 2 --master node1.clinic.org:29500 --slurm=account=smith",
        "finetune --nodes 2 --master (local) --slurm=(local)",
    ),
    ("finetune --run-dir=Smith --accelerate-config a.yaml", "finetune --run-dir=(local) --accelerate-config (local)"),
    ("finetune --recipe smith.yaml train.epochs=3", "finetune --recipe (local) train.epochs=3"),
    ("finetune --recipe=smith.yaml -q", "finetune --recipe=(local) -q"),
    ("finetune -rsmith.yaml", "finetune -r(local)"),
    ("finetune -r art corpus.path=smith_clinic.csv", "finetune -r art corpus.path=(local)"),
    ("finetune -r art retention.path=Smith base=Smith", "finetune -r art retention.path=(local) base=(local)"),
    ("finetune -r art corpus.path=owner/name", "finetune -r art corpus.path=owner/name"),
    ("finetune -r art corpus.path=runs/Smith_John", "finetune -r art corpus.path=(local)"),
    ("finetune -r art corpus.card=smith.yaml corpus.card=pets", "finetune -r art corpus.card=(local) corpus.card=pets"),
    ("eval ~/Smith ../Smith /data/Smith a/b/Smith", "eval (local) (local) (local) (local)"),
    ("eval x=runs/Smith_John", "eval x=(local)"),
    ("eval base --classes cat,dog --split validation", "eval base --classes cat,dog --split validation"),
    ("eval base --classes smith.yaml", "eval base --classes (local)"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "shown"), SHOWN)
def test_no_path_is_shown(typed: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "Smith_John").mkdir(parents=True)
    (tmp_path / "smith.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["domainclip", *typed.split(" ")])
    assert public_command() == f"domainclip {shown}"


def test_long_lists_and_templates_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ",".join(f"class number {i}" for i in range(40))
    monkeypatch.setattr(
        sys, "argv", ["domainclip", "eval", "--classes", classes, "--prompt-template", "a scan of {}"]
    )
    assert public_command() == f"domainclip eval --classes {classes} --prompt-template a scan of {{}}"
