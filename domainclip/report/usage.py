"""The code of a model card that uses the model without this package, with the classes of the run.

A reader copies it and replaces nothing but the image. It computes what `classify` computes: a class is the
mean of the unit embeddings of its prompts, and logits are divided by the temperature that was fitted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from domainclip.data.cards import Prompts
from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.run_classes import RunClasses
from domainclip.models.checkpoint_files import ADAPTER_CONFIG, POOLING, SCORER, SPACE
from domainclip.models.learned_prompts import LEARNED_TOKENS, insert_learned_tokens

REPO = "OWNER/NAME"  # a push replaces it by the name of the repository
BASE = "BASE"  # stands for a base that is not on the Hub
_MOST_PROMPTS = 60  # in the code; more are read from classes.json
# Model types that a published class handles alone. sentence-transformers pads no text to the full length, as
# the sigmoid families need; transformers' pipeline supports two joined towers, but warns that it does not.
_PIPELINE = ("altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2")
_SENTENCES = ("altclip", "chinese_clip", "clip", "metaclip_2", "vision-text-dual-encoder")


@dataclass(frozen=True)
class ModelUse:
    """What decides how the weights of a folder are used."""

    adapter: bool
    family: str = "clip"
    classes: RunClasses | None = None
    lower_case: bool = False  # texts are in lower case, which the tokenizer itself does not do
    learned_tokens: Mapping[str, Any] = field(default_factory=dict)  # of prompt learning
    only_domainclip: bool = False  # class scores from support items, or a distance of its own
    several_images: bool = False  # the frames of a study become one embedding

    @classmethod
    def of(cls, folder: Path, family: str) -> ModelUse:
        """Read it from a folder of weights; without one, plain weights without classes."""
        try:
            classes = run_classes.beside_weights(folder)
        except ModelError:  # the loading of the model reports it
            classes = None
        config = _json(folder / "tokenizer_config.json")
        learned = config.get(LEARNED_TOKENS)
        return cls(
            adapter=(folder / ADAPTER_CONFIG).is_file(),
            family=family,
            classes=classes,
            lower_case=family == "siglip" and bool(config.get("do_lower_case")),
            learned_tokens=learned if isinstance(learned, dict) else {},
            only_domainclip=(folder / SCORER).is_file() or (folder / SPACE).is_file(),
            several_images=(folder / POOLING).is_file(),
        )

    @property
    def sigmoid(self) -> bool:
        """Whether the family has a bias, and pads its texts to the full length."""
        return self.family.startswith("siglip")

    def as_read(self, texts: Sequence[str]) -> list[str]:
        """Texts as the tokenizer of transformers must get them."""
        texts = [text.lower() for text in texts] if self.lower_case else list(texts)
        return insert_learned_tokens(
            SimpleNamespace(init_kwargs={LEARNED_TOKENS: self.learned_tokens}), texts
        )


@dataclass(frozen=True)
class Blocks:
    """The pieces of code of a card, and the libraries of the first; those that do not work are empty."""

    needs: str
    code: str
    pipeline: str
    sentences: str


def blocks(use: ModelUse, base: str | None, revision: str | None) -> Blocks:
    """The code that uses the model; `base` is the model on the Hub that an adapter is loaded onto."""
    if use.family in ("open_clip", "clip_ensemble") or use.only_domainclip:  # transformers has no class
        return Blocks("domainclip", "\n".join(_with_domainclip(use)), "", "")
    loaded = [*_imports(use), "", f"repo = {_text(REPO)}", *_loading(use, base, revision), ""]
    return Blocks(
        needs=f"torch, transformers{', peft' if use.adapter else ''} and Pillow",
        code="\n".join([*loaded, *_scoring(use)]),
        pipeline="\n".join(_pipeline(use)) if not use.adapter and use.family in _PIPELINE else "",
        sentences="\n".join(_sentences(use)) if not use.adapter and use.family in _SENTENCES else "",
    )


def _with_domainclip(use: ModelUse) -> Iterator[str]:
    yield from ("import domainclip", "", f"model = domainclip.load_model({_text(REPO)})")
    if use.classes is None:
        yield 'print(model.similarity(["image.png"], ["one description", "another description"]))'
    else:
        yield f'print(model.{"find" if use.classes.multi_label else "classify"}(["image.png"]))'


def _imports(use: ModelUse) -> Iterator[str]:
    if _from_file(use):
        yield from ("import json", "")
    yield "import torch"
    if use.adapter or _from_file(use):
        yield "from huggingface_hub import hf_hub_download"
    if use.adapter:
        yield "from peft import PeftModel"
    yield "from PIL import Image"
    if use.adapter:
        yield "from safetensors.torch import load_file"
    yield "from transformers import AutoImageProcessor, AutoModel, AutoTokenizer"


def _loading(use: ModelUse, base: str | None, revision: str | None) -> Iterator[str]:
    if use.adapter:
        at = f", revision={_text(str(revision))}" if revision else ""
        yield f"base = AutoModel.from_pretrained({_text(base or BASE)}{at})"
        yield "model = PeftModel.from_pretrained(base, repo).eval()"
        yield "# The logit scale was trained as well; an adapter cannot store it."
        yield from _calibration(use)
    else:
        yield "model = AutoModel.from_pretrained(repo).eval()"
    yield "tokenizer = AutoTokenizer.from_pretrained(repo)"
    yield "processor = AutoImageProcessor.from_pretrained(repo)"


def _calibration(use: ModelUse) -> Iterator[str]:
    read = 'load_file(hf_hub_download(repo, "calibration.safetensors"))'
    if use.family == "tipsv2":  # transformers has the inverse of the scale
        yield f"scale = {read}['logit_scale'].exp()"
        yield "base.temperature.data.copy_((1 / scale).reshape(base.temperature.shape))"
        return
    yield f"for name, value in {read}.items():"
    yield "    parameter = getattr(base, name)"
    yield "    parameter.data.copy_(value.reshape(parameter.shape))"


def _scoring(use: ModelUse) -> Iterator[str]:
    classes = _classes(use)
    yield 'image = Image.open("image.png").convert("RGB")'
    if not classes:
        yield f"texts = {_list(use.as_read(['one description', 'another description']))}"
        yield from _forward(use, "texts")
        scores = "torch.sigmoid(out.logits_per_image)" if use.sigmoid else "out.logits_per_image.softmax(-1)"
        yield f"print({scores})"
        return
    findings = use.classes is not None and use.classes.multi_label
    yield from _prompts(use, classes, findings)
    yield ""
    yield from _forward(use, "[prompt for texts in prompts for prompt in texts]")
    yield "parts = out.text_embeds.split([len(texts) for texts in prompts])"
    empty = " if len(part) else torch.zeros_like(out.image_embeds[0])" if findings else ""
    yield "vectors = torch.stack("
    yield f"    [torch.nn.functional.normalize(part.mean(0), dim=0){empty} for part in parts]"
    yield ")"
    yield f"scale = {'1 / model.temperature' if use.family == 'tipsv2' else 'model.logit_scale.exp()'}"
    yield "cosines = (out.image_embeds @ vectors.T)[0]"
    yield from (_findings(use, classes) if findings else _one_class(use))


def _prompts(use: ModelUse, classes: Mapping[str, Prompts], findings: bool) -> Iterator[str]:
    if _from_file(use):
        yield '# The prompts of each class: {name: {"positive": [...], "negative": [...]}}.'
        yield 'with open(hf_hub_download(repo, "classes.json"), encoding="utf-8") as stream:'
        yield '    classes = json.load(stream)["classes"]'
        yield 'prompts = [texts["positive"] for texts in classes.values()]'
        if findings:
            yield 'prompts += [texts["negative"] for texts in classes.values()]'
        return
    yield "# The prompts of each class; a class is the mean of their embeddings."
    yield from _mapping("classes", {name: use.as_read(p.positive) for name, p in classes.items()})
    yield "prompts = list(classes.values())"
    if findings:
        yield "# Their opposites, for the score of a finding."
        yield from _mapping("opposites", {name: use.as_read(p.negative) for name, p in classes.items()})
        yield "prompts += list(opposites.values())"


def _mapping(name: str, lists: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield f"{name} = {{"
    yield from (f"    {_text(key)}: {_list(texts)}," for key, texts in lists.items())
    yield "}"


def _forward(use: ModelUse, texts: str) -> Iterator[str]:
    if use.sigmoid:
        yield "length = model.config.text_config.max_position_embeddings"
        options = 'padding="max_length", truncation=True, max_length=length, return_tensors="pt"'
    else:
        options = 'padding=True, truncation=True, return_tensors="pt"'
    yield f"tokens = tokenizer({texts}, {options})"
    unmasked = use.sigmoid or use.family in ("clip", "metaclip_2")
    given = 'input_ids=tokens["input_ids"]' if unmasked else "**tokens"
    yield "with torch.no_grad():"
    yield f'    out = model({given}, **processor(image, return_tensors="pt"))'


def _one_class(use: ModelUse) -> Iterator[str]:
    yield f"probabilities = (scale * cosines{_divided(_decisions(use))}).softmax(-1)"
    yield "for name, probability in zip(classes, probabilities.tolist()):"
    yield '    print(f"{name}: {probability:.3f}")'


def _findings(use: ModelUse, classes: Mapping[str, Prompts]) -> Iterator[str]:
    """Separate questions; a probability needs a bias, or an opposite of each class."""
    decisions = _decisions(use)
    yield "present, absent = cosines.split(len(classes))"
    yield "scores = scale * (present - absent)"
    if use.sigmoid or all(prompts.negative for prompts in classes.values()):
        logits = "scale * present + model.logit_bias" if use.sigmoid else "scores"
        yield f"probabilities = torch.sigmoid(({logits}){_divided(decisions)})"
        yield "for name, probability in zip(classes, probabilities.tolist()):"
        yield '    print(f"{name}: {probability:.3f}")'
    if decisions.thresholds:
        yield "# A finding is present where its score reaches the threshold, which was chosen on validation."
        yield f"thresholds = {json.dumps(decisions.thresholds, ensure_ascii=False)}"
        yield "for name, score in zip(classes, scores.tolist()):"
        yield "    if name in thresholds:"
        yield "        print(f\"{name}: {'present' if score >= thresholds[name] else 'absent'}\")"
    elif not use.sigmoid:
        yield "print(dict(zip(classes, scores.tolist())))"


def _divided(decisions: Decisions) -> str:
    return "" if decisions.temperature is None else f" / {decisions.temperature!r}"


def _pipeline(use: ModelUse) -> Iterator[str]:
    template, names = _labels(use)
    yield from ("from transformers import pipeline", "")
    yield f'classifier = pipeline("zero-shot-image-classification", model={_text(REPO)})'
    yield f"labels = {_list(names)}"
    yield f'print(classifier("image.png", candidate_labels=labels, hypothesis_template={_text(template)}))'


def _sentences(use: ModelUse) -> Iterator[str]:
    template, names = _labels(use)
    yield from ("from PIL import Image", "from sentence_transformers import SentenceTransformer", "")
    yield f"model = SentenceTransformer({_text(REPO)})"
    yield 'images = model.encode([Image.open("image.png").convert("RGB")])'
    yield f"texts = model.encode({_list([template.replace('{}', name) for name in names])})"
    yield "print(model.similarity(images, texts))"


def _labels(use: ModelUse) -> tuple[str, list[str]]:
    """A template and the words in it that give one prompt a class; of a finding, it and its opposite."""
    classes = _classes(use)
    if not classes:
        return "{}", use.as_read(["one description", "another description"])
    first = next(iter(classes.values()))
    if use.classes is not None and use.classes.multi_label and first.negative:
        return "{}", use.as_read([first.positive[0], first.negative[0]])
    template = next(iter(use.classes.templates if use.classes else []), "{}")
    template = template.lower() if use.lower_case else template
    prompts = [use.as_read([texts.positive[0]])[0] for texts in classes.values()]
    names = use.as_read(list(classes)) if use.lower_case else list(classes)
    if all(template.replace("{}", name) == prompt for name, prompt in zip(names, prompts, strict=True)):
        return template, names
    return "{}", prompts


def _classes(use: ModelUse) -> Mapping[str, Prompts]:
    return use.classes.classes if use.classes is not None else {}


def _decisions(use: ModelUse) -> Decisions:
    return (use.classes.decisions if use.classes is not None else None) or Decisions()


def _from_file(use: ModelUse) -> bool:
    """Whether the code reads the prompts from classes.json: there are many, and they are used as they are."""
    count = sum(len(prompts.positive) + len(prompts.negative) for prompts in _classes(use).values())
    return count > _MOST_PROMPTS and not use.lower_case and not use.learned_tokens


def _text(text: str) -> str:
    """A text as Python code. As JSON: the escapes of both are the same for what is escaped."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
