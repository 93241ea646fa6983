"""Work without a network: `--offline`, or DOMAINCLIP_OFFLINE=1 for all processes of a command.

The libraries are told to stay offline, and any connection to another machine that Python code asks for is
refused: by an audit hook, which no library can avoid. Connections of this machine to itself stay allowed (a
local page, processes of one run); those between the processes of several machines are made by torch.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from functools import cache
from typing import Any

from domainclip.errors import HubError, ModelError

VARIABLE = "DOMAINCLIP_OFFLINE"
# huggingface_hub reads the first, transformers and datasets the others of their older versions.
_LIBRARIES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_CALLS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


def is_offline() -> bool:
    """Whether the command, or its environment, forbids every network call."""
    return os.environ.get(VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def go_offline() -> None:
    """Forbid network calls in this process and in those that it starts."""
    os.environ[VARIABLE] = "1"
    for name in _LIBRARIES:
        os.environ[name] = "1"
    # A library that was imported earlier has read its variable already.
    for module, name in (
        ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
        ("datasets.config", "HF_HUB_OFFLINE"),
    ):
        if module in sys.modules:
            setattr(sys.modules[module], name, True)
    _add_hook()


def refuse_if_offline(what: str, remedy: str) -> None:
    """Refuse something that needs the network.

    Raises: HubError where network calls are forbidden.
    """
    if is_offline():
        raise HubError(f"{what}: needs the network, which --offline forbids: {remedy}")


def refuse_unfetched(key: str, name: str, revision: str | None) -> None:
    """Refuse, in work offline, a model that is neither a folder of this machine nor in the cache of the Hub.

    Raises: ModelError naming the key, the model and the command that fetches it.
    """
    if not is_offline() or os.path.isdir(os.path.expanduser(name)):
        return
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json", "open_clip_config.json"):
        if isinstance(try_to_load_from_cache(name, file, revision=revision), str):
            return
    at = f" --revision {revision}" if revision else ""
    raise ModelError(
        f'{key} "{name}": not on this machine, and --offline forbids to fetch it: run "hf download '
        f'{name}{at}" where there is a network, or name a folder'
    )


@cache
def _add_hook() -> None:
    sys.addaudithook(_refuse_connection)


def _refuse_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _CALLS or not is_offline():
        return
    address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(address, tuple) or event.startswith("socket.get"):
        host = host.decode(errors="replace") if isinstance(host, bytes) else host
        if not _is_this_machine(host):
            raise HubError(
                f"{host}: a connection that --offline forbids: leave the option out, or work on local files"
            )


def _is_this_machine(host: object) -> bool:
    if host is None or host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False
