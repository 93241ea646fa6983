"""Push a run to the Hub in one commit, or preview the push."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainclip import __version__
from domainclip.config import offline
from domainclip.data.files import hub_answers
from domainclip.distributed.folder_lock import refuse_if_in_use
from domainclip.errors import DomainclipError, HubError
from domainclip.hub.allowlist import PushPlan, files_to_push, is_pushed_name
from domainclip.report.redaction import is_hub_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

# Seconds to connect, read, write and get a connection; huggingface_hub has no timeout by default.
TIMEOUT = (10.0, 300.0, 300.0, 10.0)
_log = logging.getLogger("domainclip")
_CONFLICTS = 10
_PRINTED = (".md", ".yaml", "results.json")


@dataclass(frozen=True)
class Pushed:
    """What a push sent, or would send."""

    repo_id: str
    url: str  # of the repository
    private: bool
    files: list[PushPlan]


def push(
    run: Path,
    repo_id: str,
    *,
    private: bool = True,
    dry_run: bool = False,
    include_examples: bool = False,
    message: str = f"Adapted with domainclip {__version__}",
) -> Pushed:
    """Push a run in one commit (see `files_to_push`); returns the files and the address of the repository.

    A dry run only selects the files, and uses no network. huggingface_hub reads the token from $HF_TOKEN or
    from `hf auth login`, and the address of the Hub from $HF_ENDPOINT.

    Raises: HubError when a file must not be pushed, or the Hub refuses it or cannot be reached.
    """
    _check_name(repo_id)
    refuse_if_in_use(run)
    files = files_to_push(run, include_examples, repo_id)
    if dry_run:
        return Pushed(repo_id, f"{hub_answers.endpoint()}/{repo_id}", private, files)
    offline.refuse_if_offline(
        f"push to {repo_id}", "leave the option out, or preview the push with --dry-run"
    )
    with _exchange() as exchange:
        try:
            url = _send(files, repo_id, private, message)
        except DomainclipError:
            raise
        except Exception as error:  # an answer of another form can make the client fail in any way
            raise HubError(f"push to {repo_id}: {_reason(error, repo_id, exchange.answers)}") from None
    for remark in exchange.remarks:
        _log.warning("push to %s: the Hub remarks: %s", repo_id, hub_answers.one_line(remark))
    return Pushed(repo_id, url, private, files)


def preview(files: list[PushPlan], repo_id: str, private: bool) -> str:
    """A line per file with size, sha256 and reason, then the full texts."""
    total = sum(file.size for file in files)
    visibility = "private" if private else "PUBLIC"
    lines = [f"{repo_id} ({visibility}): {len(files)} files, {total:,} bytes would be pushed"]
    lines += [f"{file.size:>14,}  {file.sha256[:12]}  {file.path}  ({file.why})" for file in files]
    for file in files:
        if file.path.endswith(_PRINTED):
            lines += ["", f"===== {file.path} =====", file.text]
    return "\n".join(lines)


def _send(files: list[PushPlan], repo_id: str, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise HubError(f"push to {repo_id}: no token: log in with `hf auth login`, or set HF_TOKEN")
    # With token=True the token is used even if HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
    api = HfApi(
        endpoint=hub_answers.endpoint(), token=True, library_name="domainclip", library_version=__version__
    )
    existing = _created_or_existing(api, repo_id, private)
    # The Hub ignores `private` for an existing repository, so its visibility is checked.
    if private and not existing.private:
        raise HubError(f"push to {repo_id}: this repository is public: add --public, or choose another")
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(file.path, file.source) for file in files
    ]
    # An adapter from an earlier push would be loaded on top of an export, so old files are deleted.
    new = {file.path for file in files}
    old = [sibling.rfilename for sibling in existing.siblings or []]
    operations += [CommitOperationDelete(path) for path in old if is_pushed_name(path) and path not in new]
    api.create_commit(repo_id, operations, commit_message=message)
    return f"{api.endpoint}/{repo_id}"


def _created_or_existing(api: HfApi, repo_id: str, private: bool) -> ModelInfo:
    """The repository, created unless it exists."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo_id, private=private)
    except HfHubHTTPError as error:
        # A token for one repository may not create any, and write to this one.
        if error.response.status_code not in (401, 402, 403, 409):
            raise
        try:
            return api.model_info(repo_id, timeout=TIMEOUT[1])
        except HfHubHTTPError:
            raise error from None
    return api.model_info(repo_id, timeout=TIMEOUT[1])


def _check_name(repo_id: str) -> None:
    if not is_hub_name(repo_id):
        raise HubError(f'"{repo_id}" is not a repository name: write it as OWNER/NAME, for example lab/clip')


@dataclass(frozen=True)
class _Exchange:
    """What the Hub answered during a push."""

    answers: list[Any] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def record(self, answer: Any) -> None:
        """Record an answer. The client repeats a request without end while the Hub answers 409."""
        self.answers.append(answer)
        if [one.status_code for one in self.answers[-_CONFLICTS:]] == [409] * _CONFLICTS:
            raise HubError("push: the repository is being changed by another request: push again later")


@contextmanager
def _exchange() -> Iterator[_Exchange]:
    """Inside, requests have timeouts, and the client prints nothing: its lines hold signed addresses."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import logging as client

    exchange, session, verbosity = _Exchange(), get_session(), client.get_verbosity()
    session.timeout = TIMEOUT
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "response": [*hooks.get("response", []), exchange.record]}
    client.set_verbosity_error()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield exchange
        exchange.remarks.extend(str(one.message) for one in caught if issubclass(one.category, UserWarning))
    finally:
        session.event_hooks = hooks
        client.set_verbosity(verbosity)


def _reason(error: Exception, repo_id: str, answers: list[Any]) -> str:
    """The cause and its remedy."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it, or preview the push with --dry-run"
    if str(error).startswith("Invalid metadata"):  # and one reason in every further line
        reasons = "; ".join(line.removeprefix("- ").rstrip(" .") for line in str(error).splitlines()[1:])
        shown = hub_answers.one_line(reasons)
        return f"the Hub refuses the front matter of README.md: {shown}: correct it, then push again"
    owner, last = repo_id.split("/")[0], answers[-1] if answers else None
    return hub_answers.explain(error, "push again", owner=owner, response=last)
