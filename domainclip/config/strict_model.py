"""The base class of recipes, cards and plans: no unknown key, no infinite number, and empty text as typed."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite.

    Where a key takes no text, empty text, as in `corpus.columns.meta=`, means none; a single text is short
    for a list of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _text_as_typed(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return {} if data == "" else data
        fields = cls.model_fields
        texts = {key: value for key, value in data.items() if isinstance(value, str) and key in fields}
        return {**data, **{key: _as_typed(text, fields[key].annotation) for key, text in texts.items()}}


def _as_typed(text: str, annotation: Any) -> Any:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    choices = [_bare(choice) for choice in (typing.get_args(annotation) if union else (annotation,))]
    if str in choices:
        return text
    if text:
        items = [_bare(*typing.get_args(choice)) for choice in choices if typing.get_origin(choice) is list]
        of_text = any(item is str or typing.get_origin(item) is typing.Literal for item in items)
        return [text] if of_text else text
    containers = [typing.get_origin(choice) for choice in choices]
    empty: Any = next((kind() for kind in (list, dict) if kind in containers), text)
    return None if empty == text and type(None) in choices else empty


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
