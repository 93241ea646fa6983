"""Which files of a run leave, and as what: an allow-list, and a search of every text on it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.errors import HubError
from domainclip.report import model_card, redaction, results_file
from domainclip.report.results_file import ResultsFile

# Everything else in the model's folder stays: peft, for one, leaves a README with the base's path there.
_MODEL = {
    "shape of the model": r"config\.json",
    "weights": r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?",
    "adapter": r"adapter_(config\.json|model\.safetensors)",
    "scale and bias": r"calibration\.safetensors",
    "pooling of several pictures": r"pooling\.(json|safetensors)",
    "words": r"tokenizer\.json|vocab\.(json|txt)|merges\.txt|(spiece|tokenizer|sentencepiece\.bpe)\.model",
    "tokenizer": r"(tokenizer_config|special_tokens_map|added_tokens)\.json",
    "image preparation": r"(pre)?processor_config\.json",
}
# Marks that reverse text; written out in JSON they mean the same, and turn nothing.
_REVERSING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TEXTS = ("README.md", "recipe.yaml", "report.html", "report.md", "results.json")


@dataclass(frozen=True)
class PushPlan:
    """One file as it leaves; `source` is a file that leaves as it is, or the very bytes."""

    path: str  # in the repository
    size: int  # bytes
    sha256: str
    why: str
    source: Path | bytes

    @property
    def text(self) -> str:
        """What can be read in it; of weights, the notes in their header."""
        if isinstance(self.source, bytes):
            return self.source.decode()
        return _notes(self.source) if self.source.suffix == ".safetensors" else _told(self.source)


def files_to_push(run: Path, include_examples: bool = False, repo_id: str = "OWNER/NAME") -> list[PushPlan]:
    """All that leaves of a run, by name in the repository; model files stand at its root.

    Raises: HubError when something is missing, may not leave, or holds what must never leave.
    """
    recipe, found = _read(run)
    paths = redaction.local_paths(recipe, run)
    model = _model_folder(run)
    files = [_model_file(file, why, recipe, run) for file, why in _model_files(model)]
    for name, text, why in _texts(run, model, recipe, found, include_examples):
        hidden = redaction.hide(text, [str(found.run.get("command") or ""), *paths])
        files.append(_of_bytes(name, hidden.replace("OWNER/NAME", repo_id).encode(), why))
    for file in files:
        _refuse_secrets(file, paths)
    return sorted(files, key=lambda file: file.path)


def is_pushed_name(path: str) -> bool:
    """Whether a file in a repository bears a name that a push writes."""
    return path in _TEXTS or _kind(path) is not None


def _read(run: Path) -> tuple[Recipe, ResultsFile]:
    needed = ("model", "recipe.yaml", "README.md", "results.json")
    missing = [name for name in needed if not (run / name).exists()]
    if missing:
        raise HubError(
            f"{run}: no {', '.join(missing)} there: name the folder of a finished run, as runs/art-1"
        )
    found = results_file.load(run / "results.json")
    if not found.valid:
        raise HubError(
            f"{run}: its report is marked invalid, so its figures must not be published: "
            "see the warnings in report.md, mend them and run again"
        )
    return model_card.run_recipe(run), found


def _model_folder(run: Path) -> Path:
    """Merged weights where there are any: who merged a run wants to share the result."""
    return run / "merged" if (run / "merged").is_dir() else run / "model"


def _model_files(model: Path) -> Iterator[tuple[Path, str]]:
    files = [(file, _kind(file.name)) for file in sorted(model.iterdir())]
    allowed = [(file, why) for file, why in files if why is not None]
    if not any(why in ("weights", "adapter") and file.suffix == ".safetensors" for file, why in allowed):
        raise HubError(f"{model}: no weights as safetensors there: name the folder of a finished run")
    for file, why in allowed:
        _refuse_links(file)
        yield file, why


def _kind(name: str) -> str | None:
    return next((why for why, pattern in _MODEL.items() if re.fullmatch(pattern, name)), None)


def _model_file(file: Path, why: str, recipe: Recipe, run: Path) -> PushPlan:
    if file.name == "adapter_config.json":
        return _of_bytes(file.name, _adapter_config(file, recipe, run), why)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return PushPlan(file.name, file.stat().st_size, digest, why, file)


def _of_bytes(path: str, data: bytes, why: str) -> PushPlan:
    return PushPlan(path, len(data), hashlib.sha256(data).hexdigest(), why, data)


def _adapter_config(file: Path, recipe: Recipe, run: Path) -> bytes:
    """The adapter's config with a base that others can load."""
    try:
        config = dict(json.loads(_told(file)))
    except (ValueError, TypeError):
        raise HubError(f"{file}: is no JSON object: the adapter is damaged") from None
    base = redaction.hub_id(str(config.get("base_model_name_or_path"))) or redaction.hub_id(recipe.base.path)
    if base is None:
        raise HubError(
            f"{file}: this adapter needs a base that lies only on this machine; "
            f"merge first: domainclip merge {run} {run / 'merged'}"
        )
    revision = config.get("revision") or recipe.base.revision
    config |= {"base_model_name_or_path": base, "revision": revision}
    return json.dumps(config, indent=2, sort_keys=True).encode()


def _texts(
    run: Path, model: Path, recipe: Recipe, found: ResultsFile, include_examples: bool
) -> Iterator[tuple[str, str, str]]:
    """Name, text and reason of what is written for people, as it may be read by all."""
    yield "README.md", _card(model if model.name == "merged" else run), "card"
    yield "recipe.yaml", redaction.public_recipe(recipe), "recipe without local paths"
    # What was typed is the user's own affair: it names folders here.
    told = {name: value for name, value in found.run.items() if name != "command"}
    figures = found.model_copy(update={"run": told}).model_dump_json(indent=1)
    yield "results.json", _REVERSING.sub(lambda mark: f"\\u{ord(mark[0]):04x}", figures), "figures"
    if (run / "report.md").exists():
        yield "report.md", _told(run / "report.md"), "report"
    page = run / "report.html"
    if page.exists() and (text := _page(_told(page), recipe, include_examples)):
        yield "report.html", text, "report"


def _card(folder: Path) -> str:
    file = folder / "README.md"
    if not file.exists():
        raise HubError(f"{file}: missing: merge again, so that the card says how merged weights are used")
    text = _told(file)
    if fault := model_card.problem(text):
        raise HubError(f"{file}: {fault}")
    return text


def _page(text: str, recipe: Recipe, include_examples: bool) -> str | None:
    """The report, unless it shows pictures and nobody attests that they may leave."""
    if not recipe.report.examples and "<img" not in text:
        return text
    if not include_examples:
        return None
    _refuse_unknown_pictures(recipe)
    return text


def _refuse_unknown_pictures(recipe: Recipe) -> None:
    privacy = load_card(recipe.corpus.card, recipe.corpus.overrides()).privacy
    if privacy.identifiers in ("none", "de-identified") and privacy.burned_in_text == "no":
        return
    raise HubError(
        f"report.html: shows pictures, but the card says identifiers: {privacy.identifiers}, burned_in_text: "
        f'{privacy.burned_in_text}; they leave only with "none" or "de-identified", and "no": '
        "state it in the card, or push without --include-examples"
    )


def _refuse_secrets(file: PushPlan, paths: list[str]) -> None:
    # A vocabulary is the base's own, and any string may be a word in it.
    if file.why == "words":
        return
    for line, what in redaction.search(file.text, paths):
        raise HubError(f"{file.path}, line {line}: {what} must not leave: take it out, then push again")


def _refuse_links(file: Path) -> None:
    if file.is_symlink() or not file.is_file():
        raise HubError(f"{file}: is a link or a folder: only what lies in the run itself leaves")


def _told(file: Path) -> str:
    _refuse_links(file)
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise HubError(f"{file}: not UTF-8 text, at byte {error.start}") from None


def _notes(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as weights:
            return json.dumps(weights.metadata() or {})
    except SafetensorError as error:
        raise HubError(f"{file}: the weights are damaged: {error}") from None
