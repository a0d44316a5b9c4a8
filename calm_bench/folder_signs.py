"""What is wrong with the folder of a model or a tokenizer at first sight: told without loading it.

A clone without Git LFS leaves small text files in place of weights and tokenizers. Only files that will be read count:
who pulled the safetensors alone has a whole model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from calm_bench.file_signs import misread_file
from calm_bench.json_text import parse_json_text

DESCRIPTIONS = ("calm_tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt")
"""What a tokenizer without ``tokenizer.json`` is made of."""
PARTS = ("tokenizer", "autoencoder")
"""Folders in a model's folder."""


def tokenizer_fault(folder: Path) -> str | None:
    """``FILE is ...`` of a file because of which no tokenizer can be read from ``folder``, or what is to be done about
    a folder that holds none; None if nothing is seen."""
    wrong = _fault(_of_tokenizer(folder))
    if wrong is not None or not folder.is_dir():
        return wrong
    # Some tokenizers are but a class, which the model's configuration may name.
    has_any = any(file.is_file() for file in (*_of_tokenizer(folder), folder / "config.json"))
    return without_tokenizer(folder) if _inner(folder) or not has_any else None


def no_such_folder(name: str) -> str | None:
    """What is wrong with ``name`` where it can only be the path of a folder, and is none; a name on a hub has at most
    one slash, inside of it."""
    path = Path(name).expanduser()
    if path.is_file():
        return f"{path} is a file: name the folder that it lies in"
    is_path = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or name.endswith("/")
    return f"there is no folder {path.absolute()}" if is_path and not path.is_dir() else None


def without_tokenizer(folder: Path) -> str | None:
    """What is to be done about a ``folder`` that gave no tokenizer; None where it has ``tokenizer.json`` or code of its
    own: the reason is another one then."""
    if (folder / "tokenizer.json").exists() or any(folder.glob("*.py")):
        return None
    if (inner := _inner(folder)) is not None:
        return f"the folder of a model has its tokenizer in a folder of its own: name {inner}"
    return (
        f"{folder} has no tokenizer.json: bring all files that save_pretrained wrote. Of a tokenizer in other files, "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW) makes one, where transformers can read it"
    )


def _inner(folder: Path) -> Path | None:
    """The tokenizer's folder in that of a model, which has none beside its weights."""
    inner = folder / PARTS[0]
    is_alone = inner.is_dir() and not any(file.is_file() for file in _of_tokenizer(folder))
    return inner if is_alone else None


def model_fault(folder: Path) -> str | None:
    """The same of a model with its weights, its tokenizer and its autoencoder, where they are there."""
    parts = [folder, *(folder / name for name in PARTS)]
    return _fault(file for part in parts for found in (_of_weights(part), _of_tokenizer(part)) for file in found)


def judge_fault(folder: Path) -> str | None:
    """The same of a causal language model of transformers that is to read texts: it needs weights and a tokenizer."""
    wrong = model_fault(folder)
    if wrong is not None or not folder.is_dir():
        return wrong
    has_tokenizer = any(file.is_file() for part in (folder, folder / PARTS[0]) for file in _of_tokenizer(part))
    for is_there, what in (
        ((folder / "config.json").is_file(), "config.json"),
        (any(file.suffix != ".json" for file in _of_weights(folder)), "weights (a safetensors file)"),
        (has_tokenizer, "tokenizer (tokenizer.json)"),
    ):
        if not is_there:
            return f"{folder} has no {what}: bring all files that save_pretrained wrote of the model and its tokenizer"
    return None


def _of_tokenizer(folder: Path) -> Iterator[Path]:
    whole = folder / "tokenizer.json"
    yield from (folder / name for name in DESCRIPTIONS)
    yield from [whole] if whole.exists() else [*(folder / name for name in VOCABULARIES), *folder.glob("*.tiktoken")]


def _of_weights(folder: Path) -> Iterator[Path]:
    yield folder / "config.json"
    for kind in ("model*.safetensors", "pytorch_model*.bin"):
        if files := sorted(folder.glob(kind)):
            yield from files
            return


def _fault(files: Iterator[Path]) -> str | None:
    for file in files:
        if not file.is_file():
            continue
        is_json = file.suffix == ".json"
        try:
            wrong = misread_file(file, is_text=is_json)
            if wrong is None and is_json:
                parse_json_text(file.read_text(encoding="utf-8"))
        except OSError as error:
            wrong = f"not readable ({error.strerror or error})"
        except ValueError as error:
            wrong = f"no JSON ({error}): it is damaged, so bring it again from where it came"
        if wrong is not None:
            return f"{file} is {wrong}"
    return None
