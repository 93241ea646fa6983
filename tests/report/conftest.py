"""No test reads or writes the secret of whoever runs it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_SECRET", "for tests")
