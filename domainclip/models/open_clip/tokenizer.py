"""The tokenizer of a checkpoint of open_clip: the byte pairs of CLIP, or one of transformers."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Regex, normalizers

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files, folder_checks, hf_loading
from domainclip.models.open_clip.config import FILE, OpenClipConfig, TextTower

_CLIP = "openai/clip-vit-base-patch32"  # whose byte pairs are open_clip's
_FILES = [*checkpoint_files.TOKENIZERS, "merges.txt", "*token*.json", "tokenizer.model"]
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # in the package open_clip
_CONCH = "open_clip_custom/tokenizers/conch_byte_level_bpe_uncased.json"  # in the package conch
_CONCH_TOKENS = {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>", "pad_token": "<pad>"}


def load_tokenizer(base: str, folder: Path, config: OpenClipConfig) -> Any:
    """The tokenizer, from the folder, the repository that the config names, or the package open_clip.

    Raises: ModelError when it is in none of them, or cleans texts in a way that is not supported.
    """
    tower = config.text
    unknown = set(tower.tokenizer_kwargs) - {"clean"} | (
        {"clean"}
        if tower.tokenizer_kwargs.get("clean") not in (None, "whitespace", "canonicalize")
        else set()
    )
    if unknown:
        folder_checks.refuse(
            base,
            f"{FILE}: text_cfg.tokenizer_kwargs.{min(unknown)} is not supported: name another base",
        )
    tokenizer = _conch(base, folder) if config.layout == "conch" else _read(base, folder, tower)
    pad = 0 if isinstance(tokenizer, transformers.CLIPTokenizer) else tokenizer.pad_token_id
    if tower.has_class_token and tower.pad_id != pad:
        folder_checks.refuse(
            base, f"{FILE}: text_cfg.pad_id: {tower.pad_id} is not the padding of its tokenizer: correct it"
        )
    tokenizer.model_max_length = tower.context_length
    if tower.tokenizer_kwargs.get("clean") == "canonicalize":
        _canonicalize(tokenizer)
    return tokenizer


def _read(base: str, folder: Path, tower: TextTower) -> Any:
    inside = any((folder / name).is_file() for name in checkpoint_files.TOKENIZERS)
    if tower.hf_tokenizer_name:
        return hf_loading.load_tokenizer(folder if inside else _fetch(base, tower.hf_tokenizer_name))
    if inside:
        return transformers.CLIPTokenizer.from_pretrained(folder)
    spec = importlib.util.find_spec("open_clip")
    if spec is not None and spec.origin is not None:
        return _byte_pairs(Path(spec.origin).parent / _VOCABULARY)
    return transformers.CLIPTokenizer.from_pretrained(_fetch(base, _CLIP))


def _conch(base: str, folder: Path) -> Any:
    """The tokenizer that a run has saved, or the file of CONCH's own package."""
    if (folder / "tokenizer_config.json").is_file():
        return hf_loading.load_tokenizer(folder)
    spec = importlib.util.find_spec("conch")
    package = [Path(place, _CONCH) for place in (spec.submodule_search_locations or ())] if spec else []
    files = [folder / "tokenizer.json", folder / Path(_CONCH).name, *package]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        folder_checks.refuse(
            base,
            f"its tokenizer is missing: copy conch/{_CONCH} of github.com/mahmoodlab/CONCH into the folder",
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **_CONCH_TOKENS)


def _fetch(base: str, name: str) -> Path:
    try:
        return checkpoint_files.find_files(name, _FILES)
    except ModelError as error:
        reason = str(error).removeprefix(f'base "{name}": ')
        folder_checks.refuse(
            base,
            f"its tokenizer is that of {name}: {reason}: where the Hub can be reached, run: "
            f'hf download {name} --include "*token*" --include "vocab*" --include merges.txt',
        )


def _byte_pairs(file: Path) -> Any:
    """CLIP's tokenizer from its list of merges: letters, letters at the end of a word, merges, two marks."""
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = list(transformers.convert_slow_tokenizer.bytes_to_unicode().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)


def _canonicalize(tokenizer: Any) -> None:
    """Lower case, no punctuation, single spaces [open_clip's canonicalize_text], before all other steps."""
    backend = tokenizer.backend_tokenizer
    steps = [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    backend.normalizer = normalizers.Sequence(
        [*steps, *([] if backend.normalizer is None else [backend.normalizer])]
    )
