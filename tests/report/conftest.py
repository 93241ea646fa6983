"""Tests neither read nor write the secret of the user."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def fixed_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_SECRET", "for tests")
