"""Several machines: their options, and what they must share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError

from domainclip.distributed import collectives, launch
from domainclip.distributed.nodes import Nodes, parse_nodes, refuse_unshared
from domainclip.errors import DataError, ExitCode, RecipeError
from domainclip.pipelines import starting_point


def test_the_place_of_a_machine() -> None:
    nodes = parse_nodes(2, 1, "localhost:29500")
    assert nodes == Nodes(2, 1, "localhost", 29500)
    assert parse_nodes(2, 0, "[::1]:80") == Nodes(2, 0, "::1", 80)
    assert parse_nodes(None, None, None) is None
    assert parse_nodes(1, None, None) is None
    options = launch._options(4, None, nodes)
    named = dict(pairwise(options))
    assert named["--num_processes"] == "8"  # of all machines
    assert (named["--num_machines"], named["--machine_rank"]) == ("2", "1")
    assert (named["--main_process_ip"], named["--main_process_port"]) == ("localhost", "29500")
    alone = launch._options(4, None)
    assert alone[alone.index("--main_process_port") + 1] == "0"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((None, 0, None), "--node-rank: set the number of machines with --nodes"),
        ((1, None, "a:1"), "--master: set the number of machines with --nodes"),
        ((2, None, "a:1"), "--nodes: --node-rank is missing"),
        ((2, 0, None), "--nodes: --master is missing"),
        ((2, 2, "a:1"), "--node-rank: 2 of 2 machines: number them from 0 to 1"),
        ((2, 0, "node1"), "--master: not HOST:PORT"),
        ((2, 0, "node1:0"), "--master: not HOST:PORT"),
        ((2, 0, "node1:70000"), "--master: not HOST:PORT"),
        ((2, 0, ":80"), "--master: not HOST:PORT"),
        ((2, 0, "a..b:80"), "--master: no address for host a..b"),
    ],
)
def test_options_that_do_not_fit(options: tuple[Any, Any, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_nodes(*options)
    assert str(caught.value).startswith(line)


def test_a_run_folder_that_a_machine_does_not_see() -> None:
    refuse_unshared(Path("run"), [True, True])
    with pytest.raises(RecipeError, match="--run-dir: process 2 does not see run"):
        refuse_unshared(Path("run"), [True, True, False])


def test_machines_with_other_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = {"recipe": {}, "corpus": "a", "base": "b", "curated": "c"}
    starting_point._refuse_other_inputs([identity, dict(identity)])
    with pytest.raises(DataError, match="corpus: process 1 reads another one than process 0"):
        starting_point._refuse_other_inputs([identity, {**identity, "corpus": "x"}])


def test_processes_that_do_not_meet() -> None:
    nodes = Nodes(2, 0, "node1", 29500)
    assert launch._no_meeting(ConnectionError("in use"), nodes).code == ExitCode.USAGE
    late = launch._no_meeting(DistNetworkError("1/2 clients joined"), nodes)
    assert str(late).startswith("--nodes: not all 2 machines came to node1:29500: start the command on each")
    assert late.code == ExitCode.LOST
    hint = launch._with_hint(launch.LaunchFailed("process 0, at step 3", ExitCode.LOST), nodes)
    assert str(hint).endswith("; the output on the other machines may name the cause")
    assert collectives.gather_objects(True) == [True]
