"""Several machines: the options that name this one's place among them, and what all of them must share."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from domainclip.errors import RecipeError

_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Nodes:
    """The machines of one run, and the place of this one."""

    count: int
    rank: int  # of this machine, from 0
    host: str  # of the machine of rank 0
    port: int  # free there

    def arguments(self) -> list[str]:
        """Return the options of Accelerate's launcher."""
        return [
            *("--num_machines", str(self.count), "--machine_rank", str(self.rank), "--same_network"),
            *("--main_process_ip", self.host, "--main_process_port", str(self.port)),
        ]


def parse_nodes(count: int | None, rank: int | None, master: str | None) -> Nodes | None:
    """Return the machines that --nodes, --node-rank and --master name; None for this machine alone.

    Raises: RecipeError for options that do not fit together, and for a host that has no address.
    """
    if (count or 1) == 1:
        if rank is not None or master is not None:
            option = "--node-rank" if rank is not None else "--master"
            raise RecipeError(f"{option}: set the number of machines with --nodes, 2 or more")
        return None
    assert count is not None
    if rank is None or master is None:
        missing = "--node-rank" if rank is None else "--master"
        raise RecipeError(
            f"--nodes: {missing} is missing: run the command on each machine, with --node-rank 0 to "
            f"{count - 1} and the same --master HOST:PORT, that of rank 0"
        )
    if rank >= count:
        raise RecipeError(f"--node-rank: {rank} of {count} machines: number them from 0 to {count - 1}")
    host, _, port = master.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= _HIGHEST_PORT:
        raise RecipeError("--master: not HOST:PORT: write it as node1:29500")
    host = host.removeprefix("[").removesuffix("]")  # of an IPv6 address
    try:
        socket.getaddrinfo(host, int(port))
    except (OSError, UnicodeError):
        raise RecipeError(f"--master: no address for host {host}: check its name") from None
    return Nodes(count, rank, host, int(port))


def refuse_unshared(folder: Path, is_visible: list[bool]) -> None:
    """Refuse a run folder on a disk that not all processes share; `is_visible` is by rank.

    Raises: RecipeError.
    """
    if not all(is_visible):
        raise RecipeError(
            f"--run-dir: process {is_visible.index(False)} does not see {folder}, which process 0 made: "
            "name a folder on a disk that all machines share"
        )
