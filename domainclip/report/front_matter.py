"""The front matter of a model card, checked as the Hub checks it, without a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from domainclip.config import strict_yaml
from domainclip.errors import RecipeError, did_you_mean
from domainclip.report.redaction import hub_id

# https://huggingface.co/docs/hub/repositories-licenses
_KNOWN = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl
odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
LICENSES = frozenset(_KNOWN.split())
# ISO 639-1. The Hub also takes the three letters of ISO 639-2 and 639-3.
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is
it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms
mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si
sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh
yi yo za zh zu
"""
_LANGUAGES = frozenset(_CODES.split())
_COUNTRIES = {"jp": "ja", "cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "ua": "uk", "us": "en", "gb": "en"}
_TEXTS = {  # keys that hold one text, with an example
    "license": "mit",
    "license_name": "my-license",
    "license_link": "LICENSE",
    "library_name": "transformers",
    "pipeline_tag": "zero-shot-image-classification",
    "base_model_relation": "finetune",
    "thumbnail": "https://example.org/a.png",
}
_LISTS = {  # keys that hold one text or a list of texts
    "language": "[en]",
    "base_model": "OWNER/NAME",
    "datasets": "[OWNER/NAME]",
    "metrics": "[accuracy]",
    "tags": "[clip]",
}
FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def is_language(code: str) -> bool:
    """Whether the Hub takes a text as the code of a language."""
    return code in _LANGUAGES or code in ("code", "multilingual") or bool(re.fullmatch("[a-z]{3}", code))


def unmarked(text: str) -> str:
    """The text without a byte order mark, with the line ends of Unix: the Hub reads no other front matter."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def problem(text: str) -> str | None:
    """The reason why the Hub would reject a card, with the remedy; None for a valid card."""
    text = unmarked(text)
    block = FRONT_MATTER.match(text)
    if block is None and text.lstrip().startswith("---"):
        return "its front matter has no end: write a line of --- below it"
    if block is None:
        return "its front matter is missing: begin the file with it, between two lines of ---"
    try:
        data = strict_yaml.load_yaml(block[1], "its front matter")
    except RecipeError as error:
        return next(iter(str(error).splitlines()))
    except TypeError:
        return "its front matter has a list or a mapping as a key: write a word"
    if not isinstance(data, dict):
        return f"its front matter is {_kind(data)}: write keys with values, such as license: mit"
    return next(_problems(data), None)


def _problems(data: dict[str, Any]) -> Iterator[str]:
    yield from _wrong_types(data)
    yield from _license(data)
    yield from (f"language: {fault}" for code in _items(data.get("language")) if (fault := _language(code)))
    if any(hub_id(base) is None for base in _items(data.get("base_model"))):
        yield "base_model: must be a repository name, OWNER/NAME"
    if data.get("model-index") is not None and (fault := _model_index(data["model-index"])):
        yield fault


def _wrong_types(data: dict[str, Any]) -> Iterator[str]:
    for key, example in (_TEXTS | _LISTS).items():
        value = data.get(key)
        values = value if isinstance(value, list) and key in _LISTS else [value]
        for one in values:
            if not isinstance(one, str) and (one is not None or value is not None):
                form = "a text or a list of texts" if key in _LISTS else "one text"
                yield f"{key}: {_kind(one)} is not allowed: write {form}, such as {key}: {example}"


def _license(data: dict[str, Any]) -> Iterator[str]:
    name = data.get("license")
    if name is None:
        yield "license: missing: write an identifier of the Hub, such as license: mit, or license: unknown"
    elif name not in LICENSES:
        shown = f'"{name}"' if re.fullmatch(r"[\w.+-]{1,40}", name) else "the text"
        yield f"license: {shown} is not a licence of the Hub: {did_you_mean(name.lower(), LICENSES)}"
    elif name == "other" and not data.get("license_name"):
        yield "license: other needs license_name"


def _language(code: str) -> str | None:
    if is_language(code):
        return None
    begin = re.split("[-_]", code.lower())[0]
    near = _COUNTRIES.get(begin) or (begin if begin in _LANGUAGES else "en")
    return f"a code is not one of ISO 639, two or three small letters, such as {near}"


def _model_index(index: Any) -> str | None:
    """The first fault of the metrics, with its place."""
    try:
        TypeAdapter(list[_Model]).validate_python(index)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(step) for step in ("model-index", *first["loc"]))
        return f"{key}: {first['msg'].lower()}: correct it, or remove model-index"
    return None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Task(_Part):
    type: str


class _Data(_Part):
    name: str
    type: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


class _Metric(_Part):
    type: str
    value: float | int | str | bool | list[Any] | dict[str, Any]


class _Result(_Part):
    task: _Task
    dataset: _Data
    metrics: list[_Metric] = Field(min_length=1)


class _Model(_Part):
    name: str
    results: list[_Result]


def _items(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "a mapping", bool: "true or false", str: "a text"}
    return "nothing" if value is None else kinds.get(type(value), "a number")
