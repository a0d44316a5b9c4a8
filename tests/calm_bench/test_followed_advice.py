"""What messages of calm_bench advise helps: it is taken out of the message itself and done, and all is well."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from calm_bench import kept_folders
from calm_bench.autoencoder import Autoencoder
from calm_bench.caches import CacheError, user_caches
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Corpus, Experiment, Markov, MixtureSource, Tokens
from calm_bench.corpora import (
    SPLITS,
    CorpusError,
    corpus_dependencies,
    markov,
    read_documents,
    source_name,
    write_corpus,
)
from calm_bench.corpora.hugging_face import _check_commit
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.corpora.source import NEEDS_ARGUMENT
from calm_bench.corpora.stdlib import _sources
from calm_bench.devices import resolve_device
from calm_bench.kept_folders import FolderGone, check_kept, keeping
from calm_bench.opening import TokenIds, open_tokenizer
from calm_bench.overrides import ConfigurationError, apply_settings, assign, load_yaml, parse_assignment
from calm_bench.source_digest import CodeInNoFile, code_digest
from calm_bench.tokens import (
    Batches,
    ShardBatches,
    ShardFiles,
    TokensError,
    TokenStream,
    load_tokenizer,
    windows,
    write_tokens,
)
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.tokenizer import TokenizerError
from calm_bench.training.pretrained_parts import UnfitPart, pretrained_autoencoder
from calm_bench.trusted_code import UntrustedCode, check_trusted

Followed = Callable[[re.Match[str]], list[list[str]]]


def experiment(*settings: str) -> Experiment:
    return apply_settings(Experiment(), dict(map(parse_assignment, settings)))


def advised(pattern: str, error: BaseException) -> re.Match[str]:
    found = re.search(pattern, str(error))
    assert found is not None, error
    return found


def to(*settings: str) -> Followed:
    """These settings, ``{1}`` in which is what the message gave."""
    return lambda found: [[text.format(found[0], *found.groups()) for text in settings]]


def multiple(*settings: str) -> Followed:
    """The last of these settings a multiple, and twice it, of what the message gave."""
    return lambda found: [[*settings[:-1], f"{settings[-1]}={12 * int(found[1])}"]]


def kinds(setting: str) -> Followed:
    """Another kind of model, each that is named, or none of the setting."""
    return lambda found: [[], *([f"model.kind={kind}", setting] for kind in found[1].split(" or "))]


BLOCKS = "model.kind=block_diffusion"
MIXED = ["corpus.source=mixture", "corpus.mixture=[{source: markov, weight: 1}]"]
USUAL = r"say it of each source there, and here set (corpus\.\w+=\w+)"
PATCHES = ["model.kind=patch", "model.decoder.kind=transformer"]
TWICE = r"not a multiple of twice model\.num_attention_heads (\d+)"
BELONGS = r"belongs to model\.kind=(\w+(?: or \w+)*), not to \w+: leave it out"


@pytest.mark.parametrize(
    ("given", "advice", "followed"),
    [
        (
            ["corpus.source=mixture"],
            r"needs (corpus\.mixture=\[{source: )\.\.\.(, weight: )\.\.\.}, \.\.\.\]",
            lambda found: [["corpus.source=mixture", f"{found[1]}markov{found[2]}1}}]"]],
        ),
        *(
            ([*MIXED, f"corpus.{name}={value}"], USUAL, lambda found: [[*MIXED, found[1]]])
            for name, value in {
                "text_field": "body",
                "subset": "a",
                "split": "test",
                "revision": "abc",
                "max_documents": "9",
                "license": "MIT",
            }.items()
        ),
        (
            ["corpus.quality.languages=[en]"],
            "(language_field) and (languages) go together",
            to("corpus.quality.{1}=lang", "corpus.quality.{2}=[en]"),
        ),
        (["model.kind=patch", "model.head.num_samples=9"], BELONGS, kinds("model.head.num_samples=9")),
        (["model.decoder.num_layers=3"], BELONGS, kinds("model.decoder.num_layers=3")),
        (["model.denoiser.num_layers=3"], BELONGS, kinds("model.denoiser.num_layers=3")),
        (
            ["model.kind=custom"],
            r"^model: (model\.custom\.target) must name the family or its network \(module:NAME\)",
            to("model.kind=custom", "{1}=calm_bench.lm.token:TokenModel"),
        ),
        ([BLOCKS, "model.denoiser.block_length=2"], "leave it unset", to(BLOCKS)),
        ([BLOCKS, "model.denoiser.num_steps=9"], r"than the (\d+) tokens", to(BLOCKS, "model.denoiser.num_steps={1}")),
        ([BLOCKS, "model.denoiser.width=9"], TWICE, multiple(BLOCKS, "model.denoiser.width")),
        ([*PATCHES, "model.decoder.width=9"], TWICE, multiple(*PATCHES, "model.decoder.width")),
        (["model.hidden_size=65"], r"not a multiple of num_attention_heads (\d+)", multiple("model.hidden_size")),
        (
            ["model.training.num_steps=5", "model.training.num_flops=1e9"],
            "exactly one of (.+) must be set",
            lambda found: [[f"model.training.{name}=9"] for name in found[1].split(", ")],
        ),
        (
            ["model.training.gradient_accumulation=7"],
            r"batch_size (\d+) is not a multiple of",
            to("model.training.gradient_accumulation={1}"),
        ),
        (
            ["model.head.kind=shortcut", "model.head.num_shortcuts=99"],
            r"must stay below num_samples (\d+)",
            lambda found: [["model.head.kind=shortcut", f"model.head.num_shortcuts={int(found[1]) - 1}"]],
        ),
    ],
)  # fmt: skip
def test_settings(given: list[str], advice: str, followed: Followed) -> None:
    with pytest.raises(ConfigurationError) as refused:
        experiment(*given)
    ways = followed(advised(advice, refused.value))
    assert ways
    for settings in ways:
        experiment(*settings)


def test_items_of_a_list_are_counted_from_0() -> None:
    with pytest.raises(ConfigurationError) as refused:
        assign({"a": [1, 2, 3]}, {"a.3": 5})
    last = int(advised("has (.+) items, counted from 0", refused.value)[1]) - 1
    assert assign({"a": [1, 2, 3]}, {f"a.{last}": 5}) == {"a": [1, 2, 5]}


def test_a_file_of_keys_and_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(ConfigurationError) as refused:
        load_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(advised("such as '(.+)'", refused.value)[1])
    assert load_yaml(tmp_path / "a.yaml") == {"name": "my-study"}


def zipped(text: bytes, folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "a.zip", "w") as written:
        written.writestr("study.yaml", text)
    return (folder / "a.zip").read_bytes()


def zstandard(text: bytes, folder: Path) -> bytes:
    return bytes(pa.compress(text, "zstd", asbytes=True))


def encoded(name: str) -> Callable[[bytes, Path], bytes]:
    return lambda text, folder: text.decode().encode(name)


WRITERS = {"zip": zipped, "zst": zstandard, **{name: encoded(name) for name in ("utf-16", "utf-16-le", "utf-16-be")}}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_no_text_becomes_one_by_the_command(tmp_path: Path, kind: str) -> None:
    (tmp_path / "old.yaml").write_bytes(WRITERS[kind]("name: my-study é\n".encode(), tmp_path))
    with pytest.raises(ConfigurationError) as refused:
        load_yaml(tmp_path / "old.yaml")
    command = advised("`(.+)`", refused.value)[1]
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    command = command.replace("FILE", str(tmp_path / "old.yaml")).replace("NEW", str(tmp_path / "new.yaml"))
    subprocess.run(command, shell=True, check=True)
    assert load_yaml(tmp_path / "new.yaml") == {"name": "my-study é"}


@pytest.mark.parametrize("name", NEEDS_ARGUMENT)
def test_what_is_only_a_way_to_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    with pytest.raises(CorpusError) as refused:
        source_name(name)
    assert source_name(advised(r"as in (?:corpus\.source=)?(\S+)$", refused.value)[1]) == name


def written(folder: Path, name: str, text: str, **settings: Any) -> list[str]:
    """All documents of a corpus of one file."""
    (folder / name).write_text(text)
    write_corpus(Corpus(source=str(folder / name), **settings), folder / "corpus")
    return [text for split in SPLITS for text in read_documents(folder / "corpus", split)]


def rows(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


ALIKE = [f"the same fifteen words stand here again and again and nothing else is ever said {n}" for n in range(40)]


def test_files_of_text(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as refused:
        written(tmp_path, "a", "one\n")
    for suffix in re.split(r", | or ", advised(r"must end in (\.[a-z., ]+?) \(", refused.value)[1]):
        text = "text\none\n" if suffix == ".csv" else rows("one")
        assert written(tmp_path, f"a{suffix}", text, validation_fraction=0, test_fraction=0)
    with pytest.raises(CorpusError) as refused:
        written(tmp_path, "a.jsonl", rows("one", "two"))
    assert "add text, or break it into several documents" in str(refused.value)
    assert len(written(tmp_path, "a.jsonl", rows("one", "two", "three", "four"))) == 4
    with pytest.raises(CorpusError) as refused:
        written(tmp_path, "a.jsonl", rows(*"abcdefgh"), text_field="txt")
    setting, name = advised(r"\(corpus\.(\w+)\); did you mean '(\w+)'", refused.value).groups()
    assert len(written(tmp_path, "a.jsonl", rows(*"abcdefgh"), **{setting: name})) == 8
    with pytest.raises(CorpusError, match="ask for less"):
        written(tmp_path, "a.jsonl", rows(*ALIKE), quality={"decontaminate_words": 13})
    assert len(written(tmp_path, "a.jsonl", rows(*ALIKE), quality={"decontaminate_words": 60})) == 40
    header = "text,id,text\n"
    with pytest.raises(CorpusError, match=r"names the field 'text' 2 times: keep one"):
        written(tmp_path, "a.csv", header + "a,1,b\n" * 9)
    assert written(tmp_path, "a.csv", "text,id\n" + "".join(f"{n} words,1\n" for n in range(9)))


def test_a_python_without_sources_of_its_library(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as refused:
        _sources(tmp_path)
    path, other = advised(
        r"use corpus\.source=(\w+) with text of your own, or corpus\.source=(\w+)$", refused.value
    ).groups()
    assert source_name(str(tmp_path) if path == "PATH" else path) == "local"
    assert corpus_dependencies(Corpus(source=other)) is not None


def test_a_path_without_what_makes_it_an_address(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows("one"))
    address = f"file://{tmp_path / 'a.jsonl'}"
    with pytest.raises(CorpusError) as refused:
        corpus_dependencies(Corpus(source=address))
    path = address.removeprefix(advised(r"name the path itself, without (\S+)$", refused.value)[1])
    assert corpus_dependencies(Corpus(source=path))


def test_a_password_is_given_to_fsspec() -> None:
    from fsspec.config import set_conf_env  # type: ignore[import-untyped]

    with pytest.raises(CorpusError) as refused:
        corpus_dependencies(Corpus(source="https://me:secret@host/a.jsonl"))
    found: dict[str, Any] = {}
    set_conf_env(found, {advised(r"give it to fsspec \((\w+)\)", refused.value)[1]: '{"token": "secret"}'})
    assert found == {"https": {"token": "secret"}}


def test_chains_that_can_be_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markov, "MAX_ITERATIONS", 200)
    large, slow = Markov(order=5, alphabet_size=26), Markov(order=11, alphabet_size=2, concentration=1e-3)
    for given, names in ((large, r"lower corpus\.markov\.(\w+) or corpus\.markov\.(\w+)$"),
                         (slow, r"raise corpus\.markov\.(\w+) or lower corpus\.markov\.(\w+)$")):  # fmt: skip
        with pytest.raises(CorpusError) as refused:
            _ = MarkovLanguage(given).stationary
        for name in advised(names, refused.value).groups():
            better = {"order": 1, "alphabet_size": 3, "concentration": 1e6}[name]
            assert MarkovLanguage(given.model_copy(update={name: better})).stationary.sum() == pytest.approx(1.0)


AGAIN = r"write (?:it|them|the corpus|the tokens) again$"


def damage(path: Path, by: str) -> None:
    """A byte less in its middle, or what a newer version or somebody else would write."""
    if by in ("cut", "flip"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if by == "flip" else content[: len(content) // 2])
        return
    other = {"format": 99, "digest": "0", "splits": {split: ["../a"] for split in SPLITS}}[by]
    path.write_text(json.dumps(json.loads(path.read_text()) | {by: other}))


@pytest.mark.parametrize(
    ("file", "by"),
    [
        ("corpus/test.arrow", "cut"),
        ("corpus/corpus.json", "cut"),
        ("corpus/corpus.json", "format"),
        ("corpus/corpus.json", "splits"),
        ("tokens/manifest.json", "cut"),
        ("tokens/manifest.json", "format"),
        ("tokens/test", "flip"),
        ("tokens/test", "cut"),
        ("tokens/tokenizer/calm_tokenizer.json", "digest"),
    ],
)
def test_what_is_damaged_is_written_again(tmp_path: Path, file: str, by: str) -> None:
    (tmp_path / "a.jsonl").write_text(rows(*ALIKE))
    own = str(tmp_path / "a.jsonl")
    # Of several sources a corpus says which files are whose.
    config = Corpus(mixture=(MixtureSource(source=own, weight=1),)) if "corpus.json" in file else Corpus(source=own)
    tokens = tmp_path / "tokens"

    def write() -> None:
        write_corpus(config, tmp_path / "corpus")
        write_tokens(Tokens(), tmp_path / "corpus", tokens)

    def read() -> object:
        documents = list(read_documents(tmp_path / "corpus", "test"))
        return documents, load_tokenizer(tokens / "tokenizer").digest, TokenStream.open(tokens, "test")[:].tolist()

    write()
    before, path = read(), tmp_path / file
    if path.is_dir():
        path = max(path.rglob("*.arrow"), key=lambda one: one.stat().st_size)
    damage(path, by)
    with pytest.raises((CorpusError, TokensError, TokenizerError)) as refused:
        read()
    advised(AGAIN, refused.value)
    write()
    assert read() == before


def stream(length: int) -> TokenStream:
    return TokenStream("validation", 257, 256, "", (np.zeros(length, np.uint16),), (0, length), np.array([length]))


def test_text_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(TokensError) as refused:
        Batches(stream(99), 1, 100, seed=0)
    names = advised("or lower (.+) and (.+)$", refused.value).groups()
    shorter = experiment("model.chunk_size=1", "evaluation.protocol=paper", *(f"{name}=64" for name in names))
    assert Batches(stream(99), 1, shorter.model.training.sequence_length, seed=0)
    assert Batches(stream(99), 1, shorter.autoencoder.training.sequence_length, seed=0)
    with pytest.raises(TokensError) as refused:
        windows(stream(99), 100)
    setting = advised(r"raise (corpus\.\w+), or shorten the window", refused.value)[1]
    lengths = []
    for fraction in (0.05, 0.4):
        raised = experiment("corpus.source=markov", "corpus.markov.num_documents=60", f"{setting}={fraction}")
        write_corpus(raised.corpus, tmp_path / "corpus")
        lengths.append(sum(map(len, read_documents(tmp_path / "corpus", "validation"))))
    assert lengths[1] > 2 * lengths[0]


def test_shards_that_are_too_short(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows(*ALIKE))
    write_corpus(Corpus(source=str(tmp_path / "a.jsonl")), tmp_path / "corpus")

    def batches(length: int, tokens: Tokens) -> ShardBatches:
        write_tokens(tokens, tmp_path / "corpus", tmp_path / "tokens")
        return ShardBatches(ShardFiles(tmp_path / "tokens", "train"), 2, length, seed=0, window=1)

    short = Tokens(shard_tokens=50)
    with pytest.raises(TokensError) as refused:
        batches(100, short)
    setting = advised(r"raise tokens\.(\w+), use more text, or lower the training's sequence_length", refused.value)[1]
    assert next(batches(100, short.model_copy(update={setting: 500}))).shape == (2, 100)
    assert next(batches(40, short)).shape == (2, 40)


def test_an_autoencoder_of_another_chunk_size(tmp_path: Path) -> None:
    config = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12)
    Autoencoder(config, 2, 257).save(tmp_path)
    with pytest.raises(UnfitPart) as refused:
        pretrained_autoencoder(tmp_path, 4, 257)
    followed = experiment(advised(r"set (model\.chunk_size=\d+)$", refused.value)[1])
    assert pretrained_autoencoder(tmp_path, followed.model.chunk_size, 257).chunk_size == 2


def test_tokenizers_and_prompts(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="name the folder of the tokenizer instead"):
        open_tokenizer("bpe")
    trained = BpeTokenizer.train(ALIKE, 270)
    trained.save(tmp_path / "tokenizer")
    assert open_tokenizer(str(tmp_path / "tokenizer")).digest == trained.digest
    ids = TokenIds(0)
    with pytest.raises(TokenizerError) as refused:
        ids.encode("some words")
    assert len(ids.encode(advised("such as '(.+?)'", refused.value)[1])) == 3


def test_a_folder_for_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"calm-bench-{os.getuid()}"
    for kind in ("file", "folder of everybody"):
        if kind == "file":
            folder.touch()
        else:
            folder.unlink()
            folder.mkdir()
            folder.chmod(0o777)
        with monkeypatch.context() as patch:
            with pytest.raises(CacheError) as refused:
                user_caches()
            variable = advised(r"set (\w+) to a folder of yours for caches$", refused.value)[1]
            patch.setenv(variable, str(tmp_path / "mine"))
            assert user_caches() == tmp_path / "mine"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError) as refused:
        resolve_device("cuda")
    assert resolve_device(advised(r"leave the device out, or name (\w+)$", refused.value)[1]) == resolve_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError) as refused:
        resolve_device("gpu")
    for name in re.split(", or |, ", advised(": (.+) for one of several GPUs$", refused.value)[1]):
        resolve_device(name.replace("N", "0"))
    with pytest.raises(ConfigurationError) as refused:
        resolve_device("cuda:2")
    resolve_device(advised(r"the last GPU is (\S+)$", refused.value)[1])


def test_code_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UntrustedCode) as refused:
        check_trusted("never_named:Head")
    monkeypatch.setenv(*advised(r"if you trust it, set (\w+)=(\S+)$", refused.value).groups())
    check_trusted("never_named:Head")


def test_a_class_goes_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(CodeInNoFile) as refused:
        code_digest("__main__")
    file, module = advised(r"%%writefile (\S+)\) and name it as (\w+):NAME", refused.value).groups()
    (tmp_path / file).write_text("class Head: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert code_digest(module) is not None


def test_a_store_that_was_moved_goes_on_at_its_new_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_folders, "MOVING_S", 0.0)
    (tmp_path / "store" / "studies").mkdir(parents=True)
    with keeping(tmp_path / "store", "studies"):
        (tmp_path / "store").rename(tmp_path / "new place")
        with pytest.raises(FolderGone) as gone:
            check_kept(tmp_path / "store")
    option, place = shlex.split(advised(r"with the new one \((.+), in Python store=\) the same", gone.value)[1])
    assert option == "--store"
    with keeping(Path(place), "studies"):
        check_kept(Path(place))


def test_a_package_of_ones_own_called_as_ours(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "__init__.py").touch()

    def imported(folder: Path) -> str:
        script = f"import sys; sys.path.insert(0, {str(folder)!r}); import calm_bench"
        return subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False).stderr

    assert "uninstall or rename it, start from another folder" in imported(tmp_path)
    assert imported(tmp_path.parent) == ""
    (tmp_path / "evals").rename(tmp_path / "mine")
    assert imported(tmp_path) == ""


def test_a_data_set_of_the_hub_is_brought_by_the_command(tmp_path: Path) -> None:
    kept, wanted = "ab" * 20, "cd" * 20
    with pytest.raises(CorpusError) as refused:
        _check_commit(SimpleNamespace(hash=kept), "me/texts", wanted)
    command, setting = advised("`hf (.+)`, and name the folder: (.+)$", refused.value).groups()
    # Without a network it is understood, and says what it would ask for.
    program = [sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()", *shlex.split(command)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    told = subprocess.run(program, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False).stderr
    assert f"datasets/me/texts/tree/{wanted}" in told
    assert source_name(setting.removeprefix("corpus.source=")) == "hf"


@pytest.mark.parametrize(
    ("left", "advice"),
    [
        (b"\0" * 4096, r"NUL bytes, .*: bring it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", r"run `git lfs pull`"),
    ],
    ids=["NUL bytes", "a pointer"],
)
def test_what_stands_in_place_of_a_file_is_replaced_by_it(left: bytes, advice: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(left)
    with pytest.raises(CorpusError, match=advice):
        write_corpus(Corpus(source=str(path)), tmp_path / "before")
    path.write_text("".join(json.dumps({"text": f"document {number}"}) + "\n" for number in range(100)))
    assert sum(write_corpus(Corpus(source=str(path)), tmp_path / "after").documents.values()) == 100
