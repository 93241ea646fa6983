from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domainclip.data import pseudonyms
from domainclip.data.schema import CANDIDATES, CHANGE, REFERENCE
from domainclip.errors import DataError


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOMAINCLIP_SECRET")


def test_the_secret_is_made_once_for_its_owner_only(own_home: Path) -> None:
    first = pseudonyms.pseudonym_key()
    file = own_home / ".config" / "domainclip" / "secret"
    assert len(first) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pseudonyms.pseudonym_key() == first
    assert [path.name for path in file.parent.iterdir()] == ["secret"]


def test_those_who_start_together_get_one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads share a process id; processes would not.
    numbers = iter(range(100))
    monkeypatch.setattr("os.getpid", lambda: next(numbers))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: pseudonyms.pseudonym_key(), range(8)))) == 1


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    monkeypatch.setenv("DOMAINCLIP_SECRET", "hospital")
    assert pseudonyms.pseudonym_key() == b"hospital"
    assert not (own_home / ".config").exists()


def test_a_home_that_cannot_be_written(own_home: Path) -> None:
    (own_home / ".config").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        pseudonyms.pseudonym_key()
    file = own_home / ".config" / "domainclip" / "secret"
    assert str(caught.value) == f"{file}: Not a directory: make it readable, or set $DOMAINCLIP_SECRET"


def test_pseudonyms_are_the_keyed_hash_of_the_standard_library() -> None:
    # echo -n "Smith^John" | openssl dgst -sha256 -hmac key
    import hashlib
    import hmac

    expected = hmac.new(b"key", b"Smith^John", hashlib.sha256).hexdigest()[:16]
    assert pseudonyms.pseudonym("Smith^John", b"key") == expected
    assert pseudonyms.pseudonym("Smith^John", b"other") != expected


def test_an_empty_secret_protects_nobody(own_home: Path) -> None:
    file = own_home / ".config" / "domainclip" / "secret"
    file.parent.mkdir(parents=True)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        pseudonyms.pseudonym_key()
    assert str(caught.value) == f"{file}: the secret is empty: delete the file, or set $DOMAINCLIP_SECRET"


def test_ids_of_other_items_become_the_pseudonyms_of_these_items() -> None:
    meta = {REFERENCE: "Smith.png", CANDIDATES: ["Smith.png", "b"], CHANGE: "Smith.png", "age": "7"}
    found = json.loads(pseudonyms.meta_with_pseudonyms(json.dumps(meta), b"key"))
    smith, other = pseudonyms.pseudonym("Smith.png", b"key"), pseudonyms.pseudonym("b", b"key")
    assert found == {REFERENCE: smith, CANDIDATES: [smith, other], CHANGE: "Smith.png", "age": "7"}
    assert json.loads(pseudonyms.meta_with_pseudonyms("", b"key")) == {}
