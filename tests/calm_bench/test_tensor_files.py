"""Weight files: whole, in shards, with an index or without; complete or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from calm_bench.tensor_files import WeightsError, read_tensors

TENSORS = {"a": torch.arange(3.0), "b.weight": torch.ones(2, 2), "c": torch.full((1,), 7.0)}
FORMATS = pytest.mark.parametrize("suffix", ["bin", "safetensors"])


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)


def write_shards(folder: Path, suffix: str, index: bool) -> list[Path]:
    stem = "pytorch_model" if suffix == "bin" else "model"
    files = []
    for number, (name, tensor) in enumerate(TENSORS.items(), 1):
        files.append(folder / f"{stem}-{number:05}-of-{len(TENSORS):05}.{suffix}")
        write(files[-1], {name: tensor})
    if index:
        places = {name: file.name for name, file in zip(TENSORS, files, strict=True)}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}))
    return files


def assert_all(found: dict[str, Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


@FORMATS
@pytest.mark.parametrize("index", [True, False])
def test_shards_are_put_together(suffix: str, index: bool, tmp_path: Path) -> None:
    write_shards(tmp_path, suffix, index)
    assert_all(read_tensors(tmp_path, pickles=True))


def test_safetensors_win_and_pickles_are_read_only_where_allowed(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert_all(read_tensors(tmp_path, pickles=True))
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        read_tensors(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path, pickles=True).keys() == {"a"}


@FORMATS
def test_an_index_leaves_strangers_in_the_folder_alone(suffix: str, tmp_path: Path) -> None:
    files = write_shards(tmp_path, suffix, index=True)
    write(files[0].with_name(files[0].name.replace("00001-of-00003", "00001-of-00002")), {"old": torch.zeros(1)})
    assert_all(read_tensors(tmp_path, pickles=True))


@FORMATS
def test_missing_shards_are_named(suffix: str, tmp_path: Path) -> None:
    files = write_shards(tmp_path, suffix, index=False)
    files[1].unlink()
    with pytest.raises(WeightsError, match="lacks shard 2 of 00003"):
        read_tensors(tmp_path, pickles=True)
    write_shards(tmp_path, suffix, index=True)
    files[2].unlink()
    with pytest.raises(WeightsError, match=f"missing file {files[2].name}"):
        read_tensors(tmp_path, pickles=True)


def test_shards_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    files = write_shards(tmp_path, "safetensors", index=False)
    write(files[0].with_name("model-00001-of-00009.safetensors"), {"old": torch.zeros(1)})
    with pytest.raises(WeightsError, match="3 and 9 files"):
        read_tensors(tmp_path)


def test_one_name_for_two_tensors_is_refused(tmp_path: Path) -> None:
    files = write_shards(tmp_path, "safetensors", index=False)
    write(files[1], {"b.weight": TENSORS["b.weight"], "a": TENSORS["a"]})
    assert_all(read_tensors(tmp_path))
    write(files[1], {"b.weight": TENSORS["b.weight"], "a": torch.zeros(3)})
    with pytest.raises(WeightsError, match="another a "):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": "../model-00001-of-00003.safetensors"}, "no plain file name"),
        (
            {"a": "model-00001-of-00003.safetensors", "d": "model-00002-of-00003.safetensors"},
            "missing d in .*unexpected b",
        ),
        ("nothing", "no index of shards"),
    ],
)
def test_an_index_that_does_not_fit(places: object, message: str, tmp_path: Path) -> None:
    write_shards(tmp_path, "safetensors", index=False)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": torch.ones(1), "step": 3}, "step is a int"), ([torch.ones(1)], "holds a list"), (None, "damaged")],
)
def test_pickles_hold_tensors_by_name(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(content or TENSORS, path)
    if content is None:
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path, pickles=True)
