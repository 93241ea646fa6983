"""Push a run to the Hub in one commit, or preview the push."""

from __future__ import annotations

import os
import re
from pathlib import Path

from domainclip import __version__
from domainclip.errors import HubError
from domainclip.hub.allowlist import PushPlan, files_to_push, is_pushed_name
from domainclip.report.redaction import is_hub_name

# Seconds to connect, read, write and get a connection; huggingface_hub has no timeout by default.
TIMEOUT = (10.0, 300.0, 300.0, 10.0)
_PRINTED = (".md", ".yaml", "results.json")


def push(
    run: Path,
    repo_id: str,
    *,
    private: bool = True,
    dry_run: bool = False,
    include_examples: bool = False,
    message: str = f"Adapted with domainclip {__version__}",
) -> str:
    """Push a run in one commit (see `files_to_push`); returns the address of the repository.

    A dry run prints every file and text that would be pushed, and uses no network. huggingface_hub reads the
    token from $HF_TOKEN or from `hf auth login`, and the address of the Hub from $HF_ENDPOINT.

    Raises: HubError when a file must not be pushed, or the Hub refuses it or cannot be reached.
    """
    _check_name(repo_id)
    files = files_to_push(run, include_examples, repo_id)
    if dry_run:
        print(preview(files, repo_id, private))
        return f"{_endpoint()}/{repo_id}"
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return _send(files, repo_id, private, message)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(f"push to {repo_id}: {_reason(error, repo_id)}") from None


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
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token

    if get_token() is None:
        raise HubError(f"push to {repo_id}: no token: log in with `hf auth login`, or set HF_TOKEN")
    # With token=True the token is used even if HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
    api = HfApi(endpoint=_endpoint(), token=True, library_name="domainclip", library_version=__version__)
    get_session().timeout = TIMEOUT
    api.create_repo(repo_id, private=private, exist_ok=True)
    # The Hub ignores `private` for an existing repository, so its visibility is checked.
    existing = api.model_info(repo_id, timeout=TIMEOUT[1])
    if private and not existing.private:
        raise HubError(f"push to {repo_id}: this repository is public: add --public, or choose another")
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(file.path, file.source) for file in files
    ]
    # An adapter from an earlier push would be loaded on top of merged weights, so old files are deleted.
    new = {file.path for file in files}
    old = [sibling.rfilename for sibling in existing.siblings or []]
    operations += [CommitOperationDelete(path) for path in old if is_pushed_name(path) and path not in new]
    api.create_commit(repo_id, operations, commit_message=message)
    return f"{api.endpoint}/{repo_id}"


def _check_name(repo_id: str) -> None:
    if not is_hub_name(repo_id):
        raise HubError(f'"{repo_id}" is not a repository name: write it as OWNER/NAME, for example lab/clip')


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _reason(error: Exception, repo_id: str) -> str:
    """The cause and its remedy; of an unknown error, the first line of its message without tokens."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return _reason(error.__cause__, repo_id)  # the outer error of an upload only names the file
    code = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it, or preview the push with --dry-run"
    if code is not None:
        return _refusal(int(code), repo_id)
    if "Timeout" in type(error).__name__:
        return f"{_endpoint()} does not answer: try again later; the run is unchanged"
    if "Connect" in type(error).__name__ or isinstance(error, ConnectionError):
        return f"{_endpoint()} cannot be reached: check the network and HF_ENDPOINT"
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return re.sub(r"hf_\w+", "(token)", first)


def _refusal(code: int, repo_id: str) -> str:
    owner = repo_id.split("/")[0]
    known = {
        401: "the Hub rejects the token: log in again with `hf auth login`",
        403: f'the token has no write access to "{owner}": create a token that has, or choose another owner',
        404: "not found on the Hub: check the name and the access of the token",
        413: "a file is too large for the Hub",
        429: "too many requests: wait a few minutes and push again",
    }
    return known.get(code, f"the Hub answered {code}: try again later")
