"""Several processes from one command: one voice, the right exit code, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import domainclip
from domainclip.cli.app import app
from domainclip.distributed import failures, heartbeat, launch
from domainclip.distributed.heartbeat import ProcessState
from domainclip.errors import STOP_SIGNALS, DomainclipError, Interrupted, RecipeError
from domainclip.pipelines import early_checks
from domainclip.training.checkpointing import checkpoint
from tests.support.processes import launched

# An objective of a user, with a fault that only the second process meets, at its third step.
_FAULTY = """
from dataclasses import dataclass
from typing import ClassVar
import time
from domainclip.distributed import collectives
from domainclip.errors import DataError
from domainclip.objectives.base import Objective

@dataclass(frozen=True, kw_only=True)
class Faulty(Objective):
    kind: str = "none"
    citation: ClassVar[str] = "none"
    seen: ClassVar[list[int]] = []

    def __call__(self, views):
        self.seen.append(1)
        if self.kind == "slow":
            time.sleep(0.3)
        if len(self.seen) == 3 and collectives.rank() == 1:
            if self.kind == "error":
                raise DataError("row 7: no such picture; mend it")
            if self.kind == "bug":
                raise ZeroDivisionError("a bug")
            if self.kind == "kill":
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "stall":
                import os, signal
                os.kill(os.getpid(), signal.SIGSTOP)
        return (views.image * views.text).sum() * 0
"""


def _arguments(recipe_file: Path, folder: Path, kind: str, *more: str) -> list[str]:
    (folder / "faulty_part.py").write_text(_FAULTY)
    objectives = f"objectives={{contrastive: {{}}, 'faulty_part:Faulty': {{kind: {kind}}}}}"
    return ["finetune", "-q", "-r", str(recipe_file), "--run-dir", str(folder / "run"), objectives, *more]


def _start(recipe_file: Path, folder: Path, kind: str, *more: str) -> subprocess.Popen[str]:
    asked = [*_arguments(recipe_file, folder, kind, *more), "--processes", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}:{os.getcwd()}"}
    return subprocess.Popen(
        [sys.executable, "-m", "domainclip", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def _children(folder: Path) -> list[int]:
    """Processes of this run that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder / "run") in words and "finetune" in words:
            found.append(int(entry.name))
    return found


def _ended(processes: list[Any], folder: Path) -> tuple[failures.LaunchFailed, list[str]]:
    """The error that the launcher makes of their ends, and what each of them printed."""
    for process in processes:
        process.join(200)
    failure = failures.first_failure(folder, {rank: processes[rank].exitcode for rank in (1, 0)})
    return failure, [(folder / f"{rank}.err").read_text() for rank in (0, 1)]


def test_the_failing_process_is_the_one_that_speaks(recipe_file: Path, tmp_path: Path) -> None:
    with launched(2, tmp_path, *_arguments(recipe_file, tmp_path, "error")) as processes:
        failure, printed = _ended(processes, tmp_path)
    assert str(failure) == "process 1: row 7: no such picture; mend it"
    assert failure.code == 3
    assert [process.exitcode for process in processes] == [7, 3]
    assert printed == ["", ""]  # the launcher alone speaks


def test_a_process_that_is_killed_is_named(recipe_file: Path, tmp_path: Path) -> None:
    with launched(2, tmp_path, *_arguments(recipe_file, tmp_path, "kill")) as processes:
        failure, printed = _ended(processes, tmp_path)
    named = "process 1 ended without an error message (signal 9), at step 3, computing; see its output above"
    assert str(failure) == named
    assert failure.code == 7
    assert printed == ["", ""]


def test_a_process_that_stops_answering_is_named(recipe_file: Path, tmp_path: Path) -> None:
    """One process is stopped, not killed: the other waits as long as it was told, and says for what."""
    with launched(2, tmp_path, *_arguments(recipe_file, tmp_path, "stall", "train.timeout=4s")) as processes:
        processes[0].join(200)
        assert _state(processes[1].pid) == "T"
        processes[1].kill()  # as the launcher does after half a minute
        failure, printed = _ended(processes, tmp_path)
    assert str(failure) == (
        "process 1 stopped answering, at step 3, computing; process 0, at step 3, waiting for the loss of "
        "all processes: another process did not answer for 4s: check its machine, then continue with --resume; "
        "if it was only slow, raise train.timeout"
    )
    assert failure.code == 7
    assert [process.exitcode for process in processes] == [7, -9]
    assert printed == ["", ""]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_bug_shows_its_traceback(recipe_file: Path, tmp_path: Path) -> None:
    with launched(2, tmp_path, *_arguments(recipe_file, tmp_path, "bug")) as processes:
        failure, (other, printed) = _ended(processes, tmp_path)
    assert failure.code == 1
    assert str(failure).startswith("process 1 ended without an error message (exit code 1), at step 3")
    assert "ZeroDivisionError: a fault of domainclip; please report the lines above" in printed
    assert 'File "' in printed
    assert "ZeroDivisionError: a bug" not in printed  # the message of an error may name a person
    assert other == ""


def _training(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    metrics = folder / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_signal_to_the_launcher_saves_once(recipe_file: Path, tmp_path: Path) -> None:
    process = _start(recipe_file, tmp_path, "slow", "train.epochs=40")
    _training(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert err.count("continue with --resume") == 1
    assert checkpoint.newest_checkpoint(tmp_path / "run" / "checkpoints") is not None
    assert _children(tmp_path) == []


# The launcher and its processes, without a run: what `python -m` finds in the working folder.
_SMALL = """
import os, pathlib, signal, sys, time
from domainclip.distributed import launch

def until(*files):
    while not all(pathlib.Path(file).exists() for file in files):
        time.sleep(0.01)

if "DOMAINCLIP_LAUNCH_FOLDER" not in os.environ:
    launch.launch(sys.argv[1:], 2, None)
launch.set_up_process()
rank, kind = os.environ.get("RANK"), sys.argv[1]
if kind == "signalled":
    def note(number, frame):
        pathlib.Path(f"{rank}.{number}").touch()
        sys.exit(128 + number)
    signal.signal(signal.SIGUSR1, note)
if kind == "stuck" and rank == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(f"{rank}.there").touch()
if kind == "stuck" and rank == "1":
    until("0.there")
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "alone":
    sys.exit(launch.is_launched() * 3)
time.sleep(600)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "domainclip"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__.append({str(Path(domainclip.__file__).parent)!r})")
    (package / "__main__.py").write_text(_SMALL)
    monkeypatch.chdir(tmp_path)
    for name in ("PET_SIGNALS_TO_HANDLE", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    numbers = (*STOP_SIGNALS, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in numbers}  # which torch's launcher replaces
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _both_are_there(folder: Path) -> bool:
    return all((folder / f"{rank}.there").exists() for rank in (0, 1))


def test_every_process_gets_the_warning_of_slurm(small: Path) -> None:
    """SIGUSR1, which a launcher does not pass on unless it is asked to."""

    def warn() -> None:
        _until(lambda: _both_are_there(small))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=warn)
    thread.start()
    with pytest.raises(Interrupted) as caught:
        launch.launch(["signalled"], 2, None)
    thread.join()
    assert caught.value.code == 143
    number = int(signal.SIGUSR1)
    assert sorted(file.name for file in small.glob(f"*.{number}")) == [f"0.{number}", f"1.{number}"]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_killed_launcher_leaves_nobody(small: Path) -> None:
    command = [sys.executable, "-m", "domainclip", "sleeping finetune", str(small / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    _until(lambda: _both_are_there(small))
    assert len(_children(small)) == 3
    process.kill()
    process.communicate(timeout=60)
    _until(lambda: _children(small) == [])


def test_a_process_that_cannot_notice_the_end_of_another_is_killed(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a collective on a GPU: after a crash it has 30 s, not the 300 s that a signal leaves for a save."""
    from torch.distributed.elastic.multiprocessing.api import SubprocessContext

    close, limits = SubprocessContext._close, []

    def shortened(context: SubprocessContext, death_sig: signal.Signals, timeout: int = 30) -> None:
        limits.append(timeout)
        close(context, death_sig, min(timeout, 1))

    monkeypatch.setattr(SubprocessContext, "_close", shortened)
    with pytest.raises(failures.LaunchFailed) as caught:
        launch.launch(["stuck"], 2, None)
    assert str(caught.value).startswith("process 1 ended without an error message (signal 9)")
    assert limits[0] == 30  # the first ends them; a later one finds none alive
    assert os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "300"


@pytest.mark.parametrize(
    ("processes", "config", "said"),
    [
        (0, None, "--processes: at least 1, not 0"),
        (
            None,
            Path("no.yaml"),
            "--accelerate-config: no.yaml does not exist; make one with `accelerate config`",
        ),
    ],
)
def test_what_cannot_be_started(processes: int | None, config: Path | None, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        launch.launch(["finetune"], processes, config)
    assert str(caught.value) == said


_ALONE = "{compute_environment: LOCAL_MACHINE, distributed_type: 'NO', num_processes: 1, use_cpu: true}"


def test_a_file_for_one_process_starts_one(small: Path) -> None:
    """It has no WORLD_SIZE, and must not start another that has none."""
    (small / "one.yaml").write_text(_ALONE)
    with pytest.raises(failures.LaunchFailed) as caught:
        launch.launch(["alone"], None, small / "one.yaml")
    assert str(caught.value).startswith("process 0 ended without an error message (exit code 3)")
    assert [file.name for file in small.glob("*.there")] == ["None.there"]


def test_a_launched_process_launches_no_other(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without a launcher the same command starts one."""
    monkeypatch.setattr(early_checks, "check_recipe", lambda *_: None)  # which comes before a launch
    asked = [
        "finetune",
        "-q",
        "-r",
        str(recipe_file),
        "corpus.path=/nowhere",
        "--accelerate-config",
        "one.yaml",
    ]
    with pytest.raises(RecipeError, match=r"one\.yaml does not exist"):
        app(asked, standalone_mode=False)
    monkeypatch.setenv(heartbeat.FOLDER_VARIABLE, "/")
    with pytest.raises(DomainclipError, match=r"/nowhere: no such file: check corpus\.path"):
        app(asked, standalone_mode=False)


@pytest.mark.parametrize("text", ["foo: [", "foo: 3"])
def test_a_file_that_accelerate_did_not_write(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        launch.launch(["finetune"], None, tmp_path / "bad.yaml")
    assert str(caught.value).startswith(f"--accelerate-config: {tmp_path / 'bad.yaml'} cannot be read: ")
    assert str(caught.value).endswith("; make one with `accelerate config`")


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"])
def test_an_engine_that_would_train_wrongly_is_refused(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(_ALONE.replace("'NO'", f"'{engine}'"))
    with pytest.raises(RecipeError) as caught:
        launch.launch(["finetune"], None, file)
    assert str(caught.value) == (
        f"--accelerate-config: distributed_type {engine} is not supported: use NO, MULTI_GPU or MULTI_CPU, and "
        "train.fsdp=true to shard weights and moments over the processes"
    )


def test_an_engine_of_the_environment_is_refused_before_training() -> None:
    launch.check_engine("MULTI_GPU")
    with pytest.raises(RecipeError, match=r"^accelerate: distributed_type FSDP is not supported"):
        launch.check_engine("FSDP")


def test_a_signal_before_the_first_step_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is stopped while a corpus is read leaves no words: nobody is lost."""
    from accelerate.commands import launch as accelerate
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def signalled(*_: object) -> None:
        note = Path(os.environ[heartbeat.FOLDER_VARIABLE], "1.json")  # one that heard of the other's end
        note.write_text(json.dumps({"rank": 1, "at": 1, "message": "gone", "code": 7, "echo": True}))
        raise SignalException("", signal.SIGTERM)

    monkeypatch.setattr(accelerate, "launch_command", signalled)
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    # As under nohup; and none of the others ignored, as in the background of a shell.
    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGQUIT), signal.SIG_DFL)
    before = {one: signal.signal(one, of) for one, of in {**handlers, signal.SIGHUP: signal.SIG_IGN}.items()}
    try:
        with pytest.raises(Interrupted) as caught:
            launch.launch(["finetune"], 2, None)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert str(caught.value) == "stopped by SIGTERM, starting: earlier checkpoints are unchanged"
    assert caught.value.code == 143
    assert os.environ["PET_SIGNALS_TO_HANDLE"] == "SIGINT,SIGTERM,SIGUSR1,SIGQUIT"
    assert os.environ.pop("TORCH_ELASTIC_SHUTDOWN_TIMEOUT") == "300"
    assert heartbeat.FOLDER_VARIABLE not in os.environ


_STEP_7 = {0: "at step 7, waiting for a value of every process: another process did not answer for 30m"}


@pytest.mark.parametrize(
    ("echoes", "places", "codes", "code", "said"),
    [
        (  # stopped, and still there
            _STEP_7,
            {0: ProcessState(7, "computing", "a value"), 1: ProcessState(6, "reading data")},
            {0: 7, 1: -9},  # killed in the end, for it could not hear
            7,
            "process 1 stopped answering, at step 6, reading data; process 0, at step 7, waiting for a value of every "
            "process: another process did not answer for 30m: check its machine, then continue with --resume; "
            "if it was only slow, raise train.timeout",
        ),
        (  # went on when the others had left
            _STEP_7 | {1: "at step 6, waiting for the loss of all processes: another process is gone"},
            {
                0: ProcessState(7, "computing", "a value"),
                1: ProcessState(6, "computing", "the loss of all processes"),
            },
            {0: 7, 1: 7},
            7,
            "process 1 stopped answering, at step 6, waiting for the loss of all processes; process 0, at step 7, "
            "waiting for a value of every process: another process did not answer for 30m: check its machine, then "
            "continue with --resume; if it was only slow, raise train.timeout",
        ),
        (  # of four: the launcher has stopped another, which was waiting too
            _STEP_7,
            {
                0: ProcessState(7),
                1: ProcessState(7, "computing", "a value of every process"),
                2: ProcessState(7, "saving"),
            },
            {0: 7},
            7,
            "process 2 stopped answering, at step 7, saving; process 0, at step 7, waiting for a value of every "
            "process: another process did not answer for 30m: check its machine, then continue with --resume; "
            "if it was only slow, raise train.timeout",
        ),
        (  # killed; the launcher has stopped a third one meanwhile
            {0: "at step 7, waiting for a value of every process: another process is gone"},
            {0: ProcessState(7), 1: ProcessState(7, "saving"), 2: ProcessState(7)},
            {0: 7, 1: -15, 2: -9},
            7,
            "process 2 ended without an error message (signal 9), at step 7, starting; see its output above",
        ),
        (  # killed; one that waited for its GPU was killed by the launcher, later
            {},
            {0: ProcessState(7), 1: ProcessState(7, "saving")},
            {1: -9, 0: -9},
            7,
            "process 1 ended without an error message (signal 9), at step 7, saving; see its output above",
        ),
        (  # a bug, whose traceback stands above
            {},
            {1: ProcessState(0, "starting")},
            {0: -15, 1: 1},
            1,
            "process 1 ended without an error message (exit code 1), starting; see its output above",
        ),
        (_STEP_7, {0: ProcessState(7)}, {0: 7}, 7, f"process 0, {_STEP_7[0]}; continue with --resume"),
    ],
)
def test_who_was_lost(
    echoes: dict[int, str], places: dict[int, ProcessState], codes: dict[int, int], code: int, said: str
) -> None:
    found = failures.lost_process(echoes, places, codes)
    assert str(found) == said
    assert found.code == code
