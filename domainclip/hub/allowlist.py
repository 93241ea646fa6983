"""The allow-list of files that a push sends, and the search of their texts for private data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.errors import HubError
from domainclip.hub import shared_recipe
from domainclip.hub.shared_recipe import CARDS
from domainclip.models.checkpoint_files import SCORER
from domainclip.report import front_matter, model_card, redaction, results_file
from domainclip.report.results_file import ResultsFile

# Other files of the model folder are not pushed: peft, for one, writes a README with the path of the base.
_MODEL = {
    "model config": r"(open_clip_)?config\.json",
    "weights": r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|open_clip_model\.safetensors",
    "adapter": r"adapter_(config\.json|model\.safetensors)",
    "scale and bias": r"calibration\.safetensors",
    "distance of its own": r"hyperbolic\.safetensors",
    "pooling of several images": r"pooling\.(json|safetensors)",
    "class scorer": r"scorer\.(json|safetensors)",
    "tokens": r"tokenizer\.json|vocab\.(json|txt)|merges\.txt|(spiece|tokenizer|sentencepiece\.bpe)\.model",
    "tokenizer": r"(tokenizer_config|special_tokens_map|added_tokens)\.json",
    "image preprocessing": r"(pre)?processor_config\.json",
    "classes, prompts and thresholds": r"classes\.json",
}
# Characters that reverse the direction of text; as JSON escapes they are the same data without the effect.
_REVERSING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MIX_CARD = re.compile(r"mix_[A-Za-z0-9_-]+_card\.md")  # data cards of train.mix
_TEXTS = ("README.md", "report.html", "report.md", "results.json", shared_recipe.RECIPE, *CARDS.values())


@dataclass(frozen=True)
class PushPlan:
    """One file of a push; `source` is a local file that is pushed unchanged, or the bytes to push."""

    path: str  # in the repository
    size: int  # bytes
    sha256: str
    why: str
    source: Path | bytes

    @property
    def text(self) -> str:
        """The readable content; of weights, the metadata in the header."""
        if isinstance(self.source, bytes):
            return self.source.decode()
        return _metadata(self.source) if self.source.suffix == ".safetensors" else _read_text(self.source)


def files_to_push(run: Path, include_examples: bool = False, repo_id: str = "OWNER/NAME") -> list[PushPlan]:
    """The files of a run to push, sorted by their name in the repository; model files are at its root.

    Raises: HubError when a file is missing, may not be pushed, or contains private data.
    """
    recipe, results = _read(run)
    paths = redaction.local_paths(recipe, run)
    model = _model_folder(run)
    _refuse_support_items(model, recipe)
    files = [_model_file(file, why, recipe, run) for file, why in _model_files(model)]
    for name, text, why in _texts(run, model, recipe, results, include_examples):
        hidden = redaction.hide(text, [str(results.run.get("command") or ""), *paths])
        files.append(_of_bytes(name, hidden.replace("OWNER/NAME", repo_id).encode(), why))
    for file in files:
        _refuse_secrets(file, paths)
    return sorted(files, key=lambda file: file.path)


def is_pushed_name(path: str) -> bool:
    """Whether a file of a repository has a name that a push writes."""
    return path in _TEXTS or _MIX_CARD.fullmatch(path) is not None or _kind(path) is not None


def _read(run: Path) -> tuple[Recipe, ResultsFile]:
    needed = ("model", "recipe.yaml", "README.md", "results.json")
    missing = [name for name in needed if not (run / name).exists()]
    if missing and (inside := _runs_inside(run)):
        more = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
        raise HubError(
            f"{run}: holds several runs: {', '.join(one.name for one in inside[:4])}{more}: push one of "
            f"them, for example {inside[0]}"
        )
    if missing:
        raise HubError(
            f"{run}: no {', '.join(missing)} there: give the folder of a finished run, for example runs/art-1"
        )
    results = results_file.load(run / "results.json")
    if not results.valid:
        raise HubError(
            f"{run}: its report is marked invalid, so its results must not be published: "
            "resolve the warnings in report.md and run again"
        )
    return model_card.run_recipe(run), results


def _runs_inside(folder: Path) -> list[Path]:
    """The finished runs of a folder of several seeds or variants."""
    return sorted(file.parent for file in folder.glob("*/results.json") if (file.parent / "model").is_dir())


def _model_folder(run: Path) -> Path:
    """The folder of the export, if there is one; else that of the trained model."""
    return run / "export" if (run / "export").is_dir() else run / "model"


def _model_files(model: Path) -> Iterator[tuple[Path, str]]:
    files = [(file, _kind(file.name)) for file in sorted(model.iterdir())]
    allowed = [(file, why) for file, why in files if why is not None]
    if not any(why in ("weights", "adapter") and file.suffix == ".safetensors" for file, why in allowed):
        raise HubError(f"{model}: no safetensors weights there: give the folder of a finished run")
    for file, why in allowed:
        _refuse_links(file)
        yield file, why


def _kind(name: str) -> str | None:
    return next((why for why, pattern in _MODEL.items() if re.fullmatch(pattern, name)), None)


def _model_file(file: Path, why: str, recipe: Recipe, run: Path) -> PushPlan:
    if file.name == "adapter_config.json":
        return _of_bytes(file.name, _adapter_config(file, recipe, run), why)
    if file.suffix == ".json" and why != "tokens" and (public := _without_local_names(file)) is not None:
        return _of_bytes(file.name, public, why)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return PushPlan(file.name, file.stat().st_size, digest, why, file)


def _of_bytes(path: str, data: bytes, why: str) -> PushPlan:
    return PushPlan(path, len(data), hashlib.sha256(data).hexdigest(), why, data)


def _adapter_config(file: Path, recipe: Recipe, run: Path) -> bytes:
    """The adapter's config, with a base that can be loaded from the Hub."""
    try:
        config = dict(json.loads(_read_text(file)))
    except (ValueError, TypeError):
        raise HubError(f"{file}: not a JSON object: the adapter is damaged") from None
    base = redaction.hub_id(str(config.get("base_model_name_or_path"))) or redaction.hub_id(recipe.base.path)
    if base is None:
        raise HubError(
            f"{file}: this adapter needs a base model that is only on this machine: push an export, "
            f"which loads alone: domainclip export {quote(str(run))} --to transformers "
            f"--out {quote(str(run / 'export'))}; then push again"
        )
    revision = config.get("revision") or recipe.base.revision
    config |= {"base_model_name_or_path": base, "revision": revision}
    return json.dumps(config, indent=2, sort_keys=True).encode()


def _without_local_names(file: Path) -> bytes | None:
    """A config without the folder that transformers loaded it from; None: it names no folder."""
    try:
        config = json.loads(_read_text(file))
    except ValueError:
        raise HubError(f"{file}: not JSON: the file is damaged: train or export again") from None
    public = _public_names(config)
    return None if public == config else json.dumps(public, indent=2, ensure_ascii=False).encode()


def _public_names(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _public_names(inner, name) for name, inner in value.items()}
    if (
        key in ("_name_or_path", "name_or_path")
        and isinstance(value, str)
        and redaction.hub_id(value) is None
    ):
        return ""
    return value


def _texts(
    run: Path, model: Path, recipe: Recipe, results: ResultsFile, include_examples: bool
) -> Iterator[tuple[str, str, str]]:
    """Name, text and reason of each text file, without what must not be public."""
    yield "README.md", _card(model if model.name == "export" else run), "card"
    yield from shared_recipe.shared_texts(recipe)
    # The command names local folders, so it is not pushed.
    public = {name: value for name, value in results.run.items() if name != "command"}
    data = results.model_copy(update={"run": public}).model_dump_json(indent=1)
    yield "results.json", _REVERSING.sub(lambda mark: f"\\u{ord(mark[0]):04x}", data), "results"
    if (run / "report.md").exists():
        yield "report.md", _read_text(run / "report.md"), "report"
    page = run / "report.html"
    if page.exists() and (text := _page(_read_text(page), recipe, include_examples)):
        yield "report.html", text, "report"


def _card(folder: Path) -> str:
    file = folder / "README.md"
    if not file.exists():
        raise HubError(f"{file}: missing: export again, to write its card")
    text = front_matter.unmarked(_read_text(file))
    if problem := front_matter.problem(text):
        raise HubError(f"{file}: {problem}")
    return text


def _page(text: str, recipe: Recipe, include_examples: bool) -> str | None:
    """The report; None if it shows images and they may not be pushed (`include_examples`)."""
    if not recipe.report.examples and "<img" not in text:
        return text
    if not include_examples:
        return None
    _refuse_unattested_images(recipe)
    return text


def _refuse_support_items(model: Path, recipe: Recipe) -> None:
    """An embedding of a single image or caption can be matched with it; the mean of a class cannot."""
    scorer = model / SCORER
    if not scorer.is_file() or json.loads(_read_text(scorer)).get("form") == "class_means":
        return
    privacy = load_card(recipe.corpus.card, recipe.corpus.overrides()).privacy
    if privacy.identifiers not in ("none", "de-identified"):
        raise HubError(
            f"model/{SCORER}: has embeddings of single items, but the card has identifiers: "
            f"{privacy.identifiers}: correct the card, or adapt with training_free, form class_means"
        )


def _refuse_unattested_images(recipe: Recipe) -> None:
    privacy = load_card(recipe.corpus.card, recipe.corpus.overrides()).privacy
    if privacy.identifiers in ("none", "de-identified") and privacy.burned_in_text == "no":
        return
    raise HubError(
        f"report.html: shows images, but the card has identifiers: {privacy.identifiers}, burned_in_text: "
        f'{privacy.burned_in_text}; only "none" or "de-identified", with "no", may be pushed: '
        "correct the card, or push without --include-examples"
    )


def _refuse_secrets(file: PushPlan, paths: list[str]) -> None:
    # The vocabulary comes from the base model, and any string may be a token in it.
    if file.why == "tokens":
        return
    for line, what in redaction.search(
        file.text, paths, json=not file.path.endswith((".md", ".yaml", ".html"))
    ):
        raise HubError(
            f"{file.path}, line {line}: {what} must not leave this machine: remove it and push again"
        )


def _refuse_links(file: Path) -> None:
    if file.is_symlink() or not file.is_file():
        raise HubError(f"{file}: a link or a folder: only regular files of the run are pushed")


def _read_text(file: Path) -> str:
    _refuse_links(file)
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise HubError(f"{file}: not UTF-8 text, at byte {error.start}: save it as UTF-8") from None


def _metadata(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as weights:
            return json.dumps(weights.metadata() or {})
    except SafetensorError as error:
        raise HubError(f"{file}: the weights are damaged: {error}") from None
