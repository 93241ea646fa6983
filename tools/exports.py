"""Use exported folders in an environment without this package, by the code of their README files.

`python -m tools.exports FOLDER` trains a tiny run, exports it in every form, and installs the libraries of
the forms one after the other into a new environment. In each, the code of a README must give the embeddings
and the probabilities that domainclip computes; reduced precision may differ more. Exits with the number of
faults. `make exports` calls it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainclip.cli.app import main as domainclip
from domainclip.inference.adapted_model import load_model
from domainclip.pipelines.export import readme, record
from domainclip.pipelines.export.source import TEXTS, drawn_images, fixed_images
from domainclip.pipelines.export.transformers_form import TransformersForm
from tests.conftest import RECIPE, make_corpus
from tests.support.tiny_models import tiny_clip

ROOT = Path(__file__).parent.parent
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"]


@dataclass(frozen=True)
class Exported:
    """A folder, the form and precision in it, and the differences from the run that are allowed."""

    name: str
    to: str
    precision: str = "fp32"
    tolerance: float = 1e-5
    resizes_alike: bool = True  # whether its library resizes images as the run does
    check: bool = True


FORMS = [
    Exported("onnx", "onnx", tolerance=1e-4),
    Exported("onnx-fp16", "onnx", "fp16", tolerance=5e-3),
    Exported("onnx-int8", "onnx", "int8", tolerance=0.2),
    Exported("transformers", "transformers"),
    Exported("sentence-transformers", "sentence-transformers"),
    Exported("open_clip", "open_clip", resizes_alike=False, check=False),  # it is not installed here
]
# Packages that are added, in this order, and the folders that then work. Those in brackets were tried before:
# torchvision, which open_clip needs, must not change what transformers computes.
STEPS = [
    (["onnxruntime", "tokenizers", "numpy", "pillow"], ["onnx", "onnx-fp16", "onnx-int8"]),
    (["torch", "transformers"], ["transformers"]),
    (["sentence-transformers"], ["sentence-transformers"]),
    (["open_clip_torch"], ["open_clip", "transformers", "sentence-transformers"]),
]
# The wheel of torchvision on PyPI is built with CUDA. Beside a torch for the CPU its operators do not load,
# and its import fails for two names among them; none of them is used.
_TORCHVISION = """
import importlib.util
if importlib.util.find_spec("torchvision") is not None:
    import torch
    if torch.version.cuda is None:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
_COMPARE = """
import importlib.util, json, sys
import numpy as np
from PIL import Image

assert importlib.util.find_spec("domainclip") is None, "domainclip is installed there"
reference = np.load(sys.argv[1])
texts = json.loads(sys.argv[2])
values = {}
exec(compile(open(sys.argv[3], encoding="utf-8").read(), "README.md", "exec"), values)
images = [[Image.fromarray(reference[f"{kind}_{i}"]) for i in range(8)] for kind in ("fixed", "drawn")]
embeddings = [values["encode_images"](part) for part in images]
rows = np.concatenate([values["encode_texts"](texts[:-1]), values["encode_texts"](texts[-1:])])
expected = [reference["fixed"], reference["drawn"], reference["texts"]]
print(json.dumps([float(np.abs(a - b).max()) for a, b in zip([*embeddings, rows], expected)]))
"""


def main(folder: Path) -> int:
    """Export, install and compare; the number of faults."""
    run = _train(folder)
    for form in FORMS:
        _export(run, folder / form.name, form)
    probabilities = _write_reference(run, folder)
    python = folder / "environment/bin/python"
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    faults = []
    for packages, names in STEPS:
        subprocess.run([python, *PIP, ROOT / "constraints.txt", *packages], check=True)
        for name in names:
            form = next(form for form in FORMS if form.name == name)
            found = list(_faults(python, folder, form, probabilities))
            print(f"{name}, with {', '.join(packages)}: {'; '.join(found) or 'as domainclip'}", flush=True)
            faults += found
    print(f"{len(faults)} faults")
    return len(faults)


def _train(folder: Path) -> Path:
    """A run of some seconds on coloured squares, with an adapter."""
    base, corpus = tiny_clip(folder / "base"), make_corpus(folder / "corpus")
    recipe = folder / "squares.yaml"
    text = RECIPE.format(base=base, corpus=corpus).replace("strategy: full", "strategy: {lora: {rank: 4}}")
    recipe.write_text(text, encoding="utf-8")
    _domainclip("finetune", "-q", "-r", str(recipe), "--run-dir", str(folder / "run"))
    return folder / "run"


def _export(run: Path, out: Path, form: Exported) -> None:
    options = [*(["--precision", form.precision] if form.to == "onnx" else [])]
    options += [] if form.check else ["--no-check"]
    _domainclip("export", str(run), "--to", form.to, "--out", str(out), *options)


def _domainclip(*arguments: str) -> None:
    try:
        domainclip(list(arguments))
    except SystemExit as end:
        if end.code:
            raise


def _write_reference(run: Path, folder: Path) -> dict[str, float]:
    """Inputs and embeddings of the run; the probabilities of the image that the code of a README reads."""
    model = load_model(run)
    fixed, drawn = fixed_images(model.model.image_size), list(drawn_images(8))
    arrays = {"fixed": model.encode_images(fixed), "drawn": model.encode_images(drawn)}
    arrays["texts"] = model.encode_texts(TEXTS)
    arrays |= {f"fixed_{i}": np.asarray(image) for i, image in enumerate(fixed)}
    arrays |= {f"drawn_{i}": np.asarray(image) for i, image in enumerate(drawn)}
    np.savez(folder / "reference.npz", **arrays)
    for form in FORMS:
        fixed[0].save(folder / form.name / "image.png")
    return model.classify([fixed[0]])[0].probabilities


def _faults(python: Path, folder: Path, form: Exported, probabilities: dict[str, float]) -> Iterator[str]:
    out = folder / form.name
    (out / "code.py").write_text(_code(out, form), encoding="utf-8")
    code = (_TORCHVISION if form.to != "onnx" else "") + _COMPARE
    arguments = [str(folder / "reference.npz"), json.dumps(TEXTS), str(out / "code.py")]
    done = subprocess.run(
        [python, "-I", "-W", "ignore", "-c", code, *arguments],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        yield f"{form.name}: {done.stderr.strip().splitlines()[-1]}"
        return
    *_, printed, differences = done.stdout.strip().splitlines()
    names = ("images", "images that are resized", "texts")
    for name, difference in zip(names, json.loads(differences), strict=True):
        allowed = form.tolerance if form.resizes_alike or name != "images that are resized" else 1.0
        if not difference <= allowed:
            yield f"{form.name}: {name} differ by {difference:.1e}, more than {allowed:g}"
    answer = json.loads(printed.replace("'", '"'))
    if form.precision == "fp32" and any(abs(answer[name] - p) > 2e-3 for name, p in probabilities.items()):
        yield f"{form.name}: it prints {answer}, and classify has {probabilities}"


def _code(out: Path, form: Exported) -> str:
    """The code of the README; a folder of transformers has that of its card, which `make card-code` runs."""
    if form.to == "transformers":
        return readme.snippet(TransformersForm(), record.load(out))
    text = (out / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
