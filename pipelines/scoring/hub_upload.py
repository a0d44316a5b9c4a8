"""A folder of an exported model to a repository of a Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from calm_bench.errors import RunError
from calm_bench.hub_contact import hub_silence
from calm_bench.overrides import ConfigurationError
from pipelines.common.redact import redact

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class UploadError(RunError):
    """A hub that took nothing; the message says why."""


def check_repo_name(repo: str) -> None:
    """
    Raises:
        ConfigurationError: it is not written as ``OWNER/NAME``.
    """
    if not _REPO.fullmatch(repo):
        raise ConfigurationError(f"{repo!r} is no repository of a hub: write it as OWNER/NAME")


def upload(folder: Path, repo: str, public: bool, message: str) -> str:
    """Send all files of ``folder`` in one commit; the repository is made if it is not there.

    Args:
        public: whether a new repository is to be seen by all; one that is there stays as it is.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        UploadError: the hub cannot be reached, does not know the token, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    if (silent := hub_silence(api.endpoint)) is not None:
        raise UploadError(f"{repo} was not sent: {silent}")
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as error:  # the hub client and its HTTP library raise a dozen unrelated kinds
        reason = redact(f"{type(error).__name__}: {error}")[:500]
        raise UploadError(
            f"{repo} at {api.endpoint} took nothing: {reason}. hf auth login, or HF_TOKEN, says who you are; "
            "HF_ENDPOINT names another hub"
        ) from error
    return commit.commit_url
