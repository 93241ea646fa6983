"""Where a process is, said by itself and read by its launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.distributed import heartbeat, launch
from domainclip.distributed.heartbeat import ProcessState


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_LAUNCH_FOLDER", str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(heartbeat, "_state", ProcessState())
    monkeypatch.setattr(heartbeat, "_state_file", None)
    monkeypatch.setattr(heartbeat, "_timeout", "30m")


def test_the_last_place_is_read(tmp_path: Path) -> None:
    heartbeat.update("reading data", step=12)
    with heartbeat.waiting_for("the loss of all processes"):
        assert heartbeat.read_states(tmp_path) == {
            3: ProcessState(12, "reading data", "the loss of all processes")
        }
    heartbeat.update("saving")
    assert heartbeat.read_states(tmp_path) == {3: ProcessState(12, "saving")}
    (tmp_path / "4.at").write_text("")  # killed before its first word
    assert set(heartbeat.read_states(tmp_path)) == {3}


def test_words() -> None:
    assert ProcessState().text() == "starting"
    assert ProcessState(4, "saving").text() == "at step 4, saving"
    assert (
        ProcessState(4, "saving", "a value of every process").text()
        == "at step 4, waiting for a value of every process"
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            RuntimeError(
                "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 4000ms for recv operation"
            ),
            "at step 9, waiting for the loss of all processes: another process did not answer for 90s",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:33195"),
            "at step 9, waiting for the loss of all processes: another process is gone",
        ),
        (
            RuntimeError(
                "NCCL error: remote process exited or there was a network error, NCCL version 2.27.5"
            ),
            "at step 9, waiting for the loss of all processes: another process is gone",
        ),
        (
            RuntimeError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)"),
            "at step 9, waiting for the loss of all processes: another process did not answer for 90s",
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("Connection closed by peer"), None),
    ],
)
def test_what_an_error_means(fault: Exception, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat.set_timeout("90s")
    heartbeat.update("computing", step=9)
    with pytest.raises(type(fault)), heartbeat.waiting_for("the loss of all processes"):
        raise fault
    with monkeypatch.context() as alone:
        alone.delenv("DOMAINCLIP_LAUNCH_FOLDER")
        assert launch.explain_loss(fault) is None  # of a single process
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.explain_loss(fault) == said
