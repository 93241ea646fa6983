"""Find the files of a checkpoint, in a folder or on the Hub; no code, and no pickle where safetensors are."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import huggingface_hub.errors as hub_errors

from domainclip.config import offline
from domainclip.data.files import hub_answers
from domainclip.errors import ModelError
from domainclip.models import folder_checks, pickled_weights

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", pickled_weights.INDEX)
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
# Scale and bias of an adapter: peft saves no bare parameters.
CALIBRATION = "calibration.safetensors"
# How several images of a study become one embedding.
POOLING = "pooling.json"
POOLING_WEIGHTS = "pooling.safetensors"
_UNREACHABLE = (hub_errors.LocalEntryNotFoundError, ConnectionError)
# Class scores from features of support items.
SCORER = "scorer.json"
SCORER_FEATURES = "scorer.safetensors"
# The decoder of the objective `captioning`. It can repeat training captions: no push sends it.
CAPTIONER = "captioner.safetensors"
# What the objective `hyperbolic` has learned of the space around the embeddings.
SPACE = "hyperbolic.safetensors"
# The classes of the run that trained the weights.
CLASSES = "classes.json"
# All that is downloaded at first: no pickles, no code, no second copy of the weights for another framework.
# transformers itself, asked for a checkpoint without safetensors, would post name and token for a conversion.
_DOWNLOADED = [
    *(
        "*config.json",
        "model*.safetensors",
        *WEIGHTS,
        ADAPTER,
        CALIBRATION,
        POOLING,
        POOLING_WEIGHTS,
        SPACE,
        SCORER,
        SCORER_FEATURES,
        CLASSES,
    ),
    *(*TOKENIZERS, "merges.txt", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
]
_DOWNLOADED_PICKLES = ["pytorch_model*.bin", pickled_weights.INDEX]  # only where there is nothing else


def find_checkpoint(base: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder with the files, and the commit if they come from the Hub.

    Raises: ModelError that states why there is none.
    """
    local = Path(base).expanduser()
    if local.is_dir():
        return local, None
    folder_checks.check_name(base)
    offline.refuse_unfetched("base", base, revision)
    folder = _download(base, revision, _DOWNLOADED)
    return folder, folder.name  # the cache has a folder for each commit, of that name


def find_weights(base: str, folder: Path, commit: str | None, hint: str = "") -> Path:
    """The folder with the weights as safetensors: this one, or the copy of its pickle in the disk cache.

    Raises: ModelError, which ends with the hint, for a folder without weights; as `pickled_weights.convert`.
    """
    if any((folder / name).is_file() for name in WEIGHTS):
        return folder
    if commit is not None:
        _download(base, commit, _DOWNLOADED_PICKLES)
    for name in _PICKLES:
        if (folder / name).is_file():
            return pickled_weights.convert(base, folder, name)
    require_files(base, folder, "weights", WEIGHTS, hint)
    return folder


def find_files(name: str, patterns: list[str], revision: str | None = None) -> Path:
    """A local folder, or one of the local cache with those files of a Hub id that the patterns match.

    Raises: ModelError that states why there is none.
    """
    local = Path(name).expanduser()
    return local if local.is_dir() else _download(name, revision, patterns)


def _download(base: str, revision: str | None, patterns: list[str]) -> Path:
    """The folder of the local cache, with those files that the patterns match.

    Raises: ModelError that states why there is none.
    """
    try:
        return Path(huggingface_hub.snapshot_download(base, revision=revision, allow_patterns=patterns))
    except hub_errors.GatedRepoError:
        fault = f"gated; accept its terms on https://huggingface.co/{base}, then run: hf auth login"
    except hub_errors.RevisionNotFoundError:
        fault = f'the Hub has no revision "{revision}" of it'
    except hub_errors.RepositoryNotFoundError:
        fault = "no such folder, and no such model on the Hub; if it is private, run: hf auth login"
    except hub_errors.HFValidationError:
        fault = folder_checks.NO_NAME
    except Exception as error:
        fault = "no such folder, not in the local cache, and the Hub cannot be reached"
        if hub_answers.is_answer(error) or not isinstance(error, _UNREACHABLE):
            fault = f"cannot be fetched from the Hub: {hub_answers.explain(error, 'try again')}"
    raise ModelError(f'base "{base}": {fault}')


def require_files(base: str, folder: Path, component: str, files: tuple[str, ...], hint: str = "") -> None:
    """Refuse a folder that has none of the files.

    Raises: ModelError that names the first of them.
    """
    if not any((folder / file).is_file() for file in files):
        raise ModelError(f'base "{base}": no {component} in the folder, such as {files[0]}{hint}')


def in_one_line(error: Exception) -> str:
    """The text of a library's error, short enough for a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "SentencePiece" in text or "protobuf" in text:
        return "it needs two more libraries; run: pip install sentencepiece protobuf"
    return text if len(text) <= 200 else f"{text[:200]} …"
