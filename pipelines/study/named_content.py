"""What the settings of a study name and do not hold: code of one's own, and folders of parts that were trained.

Both are part of the identities of the stages that use them, so an edit trains anew. Trials that an older content
brought to an end, or let fail, are other trials then, whose scores must not choose among those of today.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calm_bench.fingerprint import folder_identity, identity
from calm_bench.source_digest import code_digest
from calm_bench.trusted_code import targets_in
from pipelines.study.config import Study
from pipelines.study.search_settings import leaves

FOLDERS = ("autoencoder.pretrained.folder", "model.pretrained.folder", "tokens.tokenizer")
"""Settings that may name a folder which decides what is trained."""


def named_content(study: Study) -> str | None:
    """16 hex digits of the content that ``study`` names; None where it names none.

    Raises:
        ChangedCode, AmbiguousModule, CodeInNoFile: of code of one's own nobody could tell which is meant.
    """
    modules = {target.partition(":")[0] for target in targets_in(study.model_dump(mode="json"))}
    digests = {name: code_digest(name) for name in sorted(modules)}
    found = {name: digest for name, digest in digests.items() if digest is not None}
    for folder in sorted(set(_folders(study))):
        found[folder] = folder_identity(Path(folder).expanduser())
    return identity(found) if found else None


def given(study: Study, setting: str) -> Iterator[Any]:
    """What the base experiment has as ``setting``, and what points of the search have instead."""
    value: Any = study
    for name in setting.split("."):
        value = getattr(value, name)
    yield value
    search = study.search
    bundles: list[dict[str, Any]] = [dict(search.fixed_settings)]
    for parameter in search.parameters:
        bundles += [{parameter.name: value} for value in parameter.values or ()]
        bundles += (parameter.choices or {}).values()
    for bundle in bundles:
        yield from (part for key, value in bundle.items() for path, part in leaves(key, value) if path == setting)


def _folders(study: Study) -> Iterator[str]:
    for setting in FOLDERS:
        yield from (str(name) for name in given(study, setting) if name and Path(str(name)).expanduser().is_dir())
