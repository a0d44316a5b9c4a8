"""Places whose implementation lists one folder at a time: one that cannot be listed is named, not left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from calm_bench.corpora import CorpusError
from calm_bench.corpora import remote_file as remote_file_module
from calm_bench.corpora.remote import find_remote


class Drive(LocalFileSystem):  # type: ignore[misc]
    """A drive that lists every folder but some."""

    protocol = "drive"
    faults: ClassVar[dict[str, OSError]] = {}
    failing: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = LocalFileSystem._strip_protocol(path.removeprefix("drive://"))
        return stripped

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        name = Path(path).name
        if name in self.faults:
            raise self.faults[name]
        if self.failing:
            raise ConnectionResetError(self.failing.pop())
        return super().ls(path, detail=detail, **options)


class SlowDrive(AsyncFileSystem):  # type: ignore[misc]
    """The same, which asks for many things at once."""

    protocol = "slow-drive"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return Drive._strip_protocol(path.removeprefix("slow-"))

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        return Drive().ls(path, detail=detail, **options)

    async def _info(self, path: str, **options: Any) -> Any:
        return Drive().info(path, **options)


@pytest.fixture(params=["drive", "slow-drive"])
def place(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote_file_module, "PAUSES_S", (0.01, 0.02))
    fsspec.register_implementation("drive", Drive, clobber=True)
    fsspec.register_implementation("slow-drive", SlowDrive, clobber=True)
    for name in ("a.jsonl", "deep/b.jsonl", "deep/deeper/c.jsonl", ".hidden/d.jsonl"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text('{"text": "some"}\n')
    Drive.faults = {".hidden": PermissionError("not yours")}
    yield f"{request.param}://{tmp_path}/texts"
    Drive.faults = {}
    Drive.failing = []


def test_a_folder_is_listed_with_all_below_it(place: str) -> None:
    Drive.failing = ["once", "twice"]
    for source in (place, f"{place}/"):
        assert [file.name for file in find_remote(source).files] == ["a.jsonl", "deep/b.jsonl", "deep/deeper/c.jsonl"]
    assert not Drive.failing


@pytest.mark.parametrize(
    "fault", [PermissionError("not yours"), ConnectionResetError("gone"), FileNotFoundError("gone")]
)
@pytest.mark.parametrize("folder", ["texts", "texts/deep", "texts/deep/deeper"])
def test_a_folder_that_cannot_be_listed_is_named(place: str, folder: str, fault: OSError) -> None:
    Drive.faults[Path(folder).name] = fault
    address = f"{place.removesuffix('texts')}{folder}"
    with pytest.raises(
        CorpusError, match=rf"cannot read {address}: (no such file|\w+: (not yours|gone))\. Nothing below"
    ):
        find_remote(place)
