"""The one error of every decoder."""

from __future__ import annotations

from domainclip.errors import DataError


class UnreadableImage(DataError):
    """A picture that cannot be decoded. `reason` says nothing of a patient; `name` may."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        # Exceptions cross from worker processes by pickle, which would call us with the text alone.
        return UnreadableImage, (self.name, self.reason)
