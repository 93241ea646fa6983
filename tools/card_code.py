"""Run the code of model cards with another Python, which has transformers and peft and not this package.

`python -m tools.card_code PYTHON` exits with 1 when a card's code fails there, or prints other probabilities
than `classify`. `make card-code` makes a new environment for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from domainclip.data.cards import Card, Prompts
from domainclip.evaluation import run_classes
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.run_classes import RunClasses
from domainclip.inference.classifier import Classifier, ask
from domainclip.models.saving import save_model
from domainclip.report.model_card import CardFacts, render
from domainclip.report.usage import ModelUse
from tests.support import tiny_models
from tests.support.run_folders import adapted, recipe, results

CLASSES = {name: Prompts(positive=[f"a photo of a {name}.", f"one {name}"]) for name in ("cat", "dog", "sun")}
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_models.tiny_clip,
    "siglip": tiny_models.tiny_siglip,
    "chinese_clip": tiny_models.tiny_chinese_clip,
}
# Stands before each piece of code: the folder is no repository, and this package must not be there.
_BEFORE = """
import huggingface_hub, importlib.util
assert importlib.util.find_spec("domainclip") is None, "domainclip is installed there"
huggingface_hub.hf_hub_download = lambda repo, name: f"{repo}/{name}"
"""


def main(python: str) -> int:
    """Run the code of each kind of card; the number of faults."""
    faults = [
        fault for family in FAMILIES for lora in (True, False) for fault in _faults(python, family, lora)
    ]
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults")
    return len(faults)


def _faults(python: str, family: str, lora: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, expected = _card(folder, family, lora)
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)):
            code = code.replace('"OWNER/NAME"', repr(str(folder / "model")))
            code = _BEFORE + code.replace('"BASE"', repr(str(folder / "base")))
            done = subprocess.run(
                [python, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False
            )
            where = f"{family}, {'adapter' if lora else 'plain weights'}, piece {number + 1}"
            print(f"{where}: exit code {done.returncode}")
            if done.returncode:
                yield f"{where}: {done.stderr.strip().splitlines()[-1]}"
            elif number == 0:
                printed = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
                if any(abs(float(printed[name]) - value) > 2e-3 for name, value in expected.items()):
                    yield f"{where}: {printed}, and classify has {expected}"


def _card(folder: Path, family: str, lora: bool) -> tuple[str, dict[str, float]]:
    """The text of a card of weights in folder/model, and the probabilities of folder/image.png."""
    recorded = RunClasses(corpus="", classes=CLASSES)
    model = adapted(FAMILIES[family](folder / "base"), lora)
    save_model(model, folder / "model")
    run_classes.save(folder / "model", recorded)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    image.save(folder / "image.png")
    pixels = {key: torch.from_numpy(value)[None] for key, value in model.image_preprocessor(image).items()}
    with torch.no_grad():
        embedding = model.encode_image(pixels).numpy()
    answer = Classifier(CachedEncoder(model), ask(recorded)).classify(embedding)[0].probabilities
    facts = CardFacts(recipe(str(folder / "base")), Card())
    return render(results(), facts, ModelUse.of(folder / "model", family)), answer


if __name__ == "__main__":
    # Absolute, since the code runs in another folder; not resolved, since this python is a link.
    sys.exit(min(1, main(str(Path(sys.argv[1]).absolute()))))
