"""What the scores of a task rest on beside the model, so that scores of other questions are never taken for them.

Tasks that ship here are named by their name alone: the revision of their stage stands for their content. A task file
is named by its content, that of the files that it includes, of its local data and of its Python functions. What
cannot be told without running the task is said, and then the scores must not be kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from calm_bench.fingerprint import content_digest, identity
from calm_bench.loaded_code import check_loaded
from calm_bench.source_digest import OUR_PACKAGES, imported_files, source_digest
from evals.hub_data import hub_data, kept_commit
from evals.lm_eval_tasks import tasks_named
from evals.task_data import LocalData, files_below
from evals.task_files import Function, TaskFile, TaskFileError, parse_task_name, read_task_file

READS = frozenset(
    {"open", "urlopen", "urlretrieve", "load_dataset", "load_from_disk", "hf_hub_download", "snapshot_download"}
    | {"read_text", "read_bytes", "read_csv", "read_json", "read_parquet", "read_table", "loadtxt", "getenv"}
    | {"load", "load_file", "genfromtxt", "fromfile", "memmap", "read_pickle", "read_excel", "read_feather", "get_data"}
    | {"read_binary", "from_csv", "from_json", "from_parquet", "from_file", "getline", "getlines", "connect", "request"}
    | {"listdir", "scandir", "iterdir", "glob", "rglob", "check_output", "Popen", "popen"}
    | {"exec", "eval", "run_path", "run_module", "spec_from_file_location"}
)
"""Names of calls by which a function reads what its own text does not hold."""
SCORING = 2
"""Raised when other numbers come of the same answers; 2: a question is a copy of another whatever number it has."""
CLOCK = frozenset(
    {"time", "time_ns", "now", "today", "utcnow", "uuid1", "uuid4", "urandom", "token_hex", "SystemRandom"}
)
"""Names of calls that give something else every time."""
SURROUNDINGS = frozenset(
    {"os.environ", "os.environb", "sys.argv", "os.uname", "os.cpu_count", "os.getpid", "os.getlogin", "os.getcwd"}
    | {"socket.gethostname", "getpass.getuser", "pathlib.Path.cwd", "pathlib.Path.home"}
)
"""What tells where, by whom or how a process was started, by its whole name."""
MODULES_OF_SURROUNDINGS = frozenset({"locale", "platform"})
"""Modules of which everything does."""
READS_BY_ANY_NAME = frozenset({"open", "exec", "eval"})
"""Builtins that count wherever they stand, since they may be called by another name."""
DRAWS = frozenset({"random", "secrets", "numpy.random"})
"""Modules of which functions draw without a seed of their own."""
TORCH_DRAWS = frozenset({"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"})
"""Functions of torch that do."""
GENERATORS = frozenset({"Random", "RandomState", "default_rng", "SeedSequence", "Generator", "manual_seed", "seed"})
"""Names of calls that make random numbers the same every time, where they are given a seed."""


@dataclass(frozen=True)
class TaskIdentity:
    """One task as a study or a command names it."""

    written: str
    """As in ``benchmarks.tasks``, but with absolute paths, so that a worker in another folder finds it."""
    name: str
    """The same without any path."""
    content: str | None
    """What it depends on, 16 hex digits; None of a task that ships here, which its name says all about."""
    unknown: tuple[str, ...] = ()
    """What its scores may depend on beyond that, a phrase each; scores must not be kept then."""
    commits: Mapping[str, str] = field(default_factory=dict)
    """By the names of single tasks, the commits of the data sets of the hub that they read."""


def task_identity(text: str, commits: Mapping[str, str] | None = None) -> TaskIdentity:
    """The identity of the task ``text``.

    Args:
        commits: of data sets of the hub, by single tasks, as an identity told them; those that it does not name are as
            the caches here tell.

    Raises:
        TaskFileError: the task file or a file that it names cannot be read.
        ChangedCode: this process has imported a function's file that has changed since.
    """
    from evals.tasks import shipped_tasks

    found = parse_task_name(text)
    data = None if found.folder is None else _content_of_folder(text, found.folder)
    if found.file is None and found.name in shipped_tasks() and data is None:
        return TaskIdentity(text, found.name, None)
    parts = _Parts({"lm_eval": version("lm-eval"), "data": data, "scoring": SCORING}, dict(commits or {}))
    if found.file is None:
        if found.name not in shipped_tasks():
            parts.add_named(found.name, found.folder)
        written = found.name if found.folder is None else f"{found.name}@{found.folder.absolute()}"
        return parts.identity(written, found.name)
    group = read_task_file(found.file)
    files = [group, *group_members(group)]
    for number, file in enumerate(files):
        parts.add(f"file {number}", file, _content(file), found.folder if number == 0 else None)
    here = {file.name for file in files}
    for file in files:
        for member in file.members if file.is_group else ():
            if member not in here and member not in shipped_tasks():
                parts.add_named(member, None)
    written = str(found.file.absolute())
    if found.folder is not None:
        written += f"@{found.folder.absolute()}"
    return parts.identity(written, found.file.name)


class _Parts:
    """What an identity is made of, collected file by file."""

    def __init__(self, found: dict[str, Any], given: Mapping[str, str]) -> None:
        self._found = found
        self._given = given
        self._commits: dict[str, str] = {}
        self._unknown: dict[str, None] = {}

    def add(self, key: str, task: TaskFile, content: _Content, folder: Path | None, named: str = "") -> None:
        """Add a task file, what is known of its content, and its data; ``named`` where it is lm-eval's of that name."""
        self._unknown |= dict.fromkeys(content.unknown)
        local = LocalData(task, folder)
        described = {**content.described, "data": [_digest(path) for path in local.files]}
        if task.settings.get("dataset_path") is not None and not local.is_complete:
            data = hub_data(task, local)
            commit = None if data is None else self._given.get(task.name) or kept_commit(data)
            if commit is None:
                reads = f"reads the data set {task.settings['dataset_path']}, which may change"
                pin = f"{task.path} {reads}: pin it (dataset_kwargs: {{revision: COMMIT}})"
                kept = f"{named} of lm-eval {reads}: no commit of it is kept here"
                self._unknown[kept if named else pin] = None
            else:
                self._commits[task.name] = commit
                # Where the file names it, its content does.
                described |= {} if commit == getattr(data, "revision", None) else {"commit": commit}
        self._found[key] = described

    def add_named(self, name: str, folder: Path | None) -> None:
        """Add the tasks that a name of lm-eval stands for; nothing where there is none of that name, which is refused
        elsewhere."""
        named = tasks_named(name)
        if named is None:
            return
        self._found[f"groups {name}"] = [_digest(path) for path in named.groups]
        for task, path in named.files.items():
            try:
                file, content = _of_lm_eval(path)
            except TaskFileError:
                # lm-eval may read what is no task file here.
                self._unknown[f"{task} of lm-eval is described in a way that is not read here"] = None
                continue
            self.add(f"task {task}", file, content, folder, task)
            if file.settings.get("dataset_path") is None:
                self._unknown[f"{task} of lm-eval makes its questions itself"] = None
        for task in named.open_ends:
            self._unknown[f"{task} of lm-eval tells its questions in no file"] = None

    def identity(self, written: str, name: str) -> TaskIdentity:
        return TaskIdentity(written, name, identity(self._found), tuple(self._unknown), self._commits)


def group_members(group: TaskFile) -> list[TaskFile]:
    """The task files beside a group's file that its tasks are in, members of members too, in the order listed."""
    if not group.is_group:
        return []
    beside: dict[str, TaskFile] = {}
    for path in sorted(group.path.parent.rglob("*.yaml")):
        try:
            file = read_task_file(path)
        except TaskFileError:
            continue  # what is no task file is no member
        beside.setdefault(file.name, file)
    found: dict[str, TaskFile] = {}
    waiting = list(group.members)
    while waiting:
        name = waiting.pop(0)
        if name in beside and name not in found and name != group.name:
            found[name] = beside[name]
            waiting += beside[name].members if beside[name].is_group else []
    return list(found.values())


class _Content(NamedTuple):
    """What a task file is beside its data."""

    described: dict[str, Any]
    unknown: tuple[str, ...]


def _content(task: TaskFile) -> _Content:
    """JSON that changes with the file, what it includes and its functions, and phrases for what that cannot hold."""
    unknown: list[str] = []
    functions = {}
    for function in task.functions:
        functions[function.name], open_ends = _code(function)
        unknown += [f"{task.path} calls {function.name}, and {phrase}" for phrase in open_ends]
    return _Content({"files": [_digest(path) for path in task.files], "functions": functions}, tuple(unknown))


@lru_cache(maxsize=4096)
def _of_lm_eval(path: Path) -> tuple[TaskFile, _Content]:
    """A task file of lm-eval: it is installed, and stays as it is for as long as the process lives."""
    file = read_task_file(path)
    return file, _content(file)


def _code(function: Function) -> tuple[str, list[str]]:
    """A digest of the function's module and what it imports, and places in them where it rests on something else."""
    module = function.name.rpartition(".")[0]
    file = function.file
    if file is None and module.partition(".")[0] in OUR_PACKAGES:
        return "ours", []
    if file is None:
        # Of an installed package.
        return module, []
    check_loaded(imported_files(file))
    return source_digest(file), [found for path in imported_files(file) for found in _open_ends(path)]


def _imported(tree: ast.AST) -> dict[str, str]:
    """By the names that ``tree`` has for them, the whole names of what it imports."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # Without a name of its own, the first part alone is one.
            first = {one.name.partition(".")[0] for one in node.names if not one.asname}
            found |= dict(zip(first, first, strict=True)) | {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def _whole_name(node: ast.AST, imported: Mapping[str, str]) -> str:
    """``numpy.random.choice`` of ``np.random.choice``; of what is no name and its parts, the parts alone."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_whole_name(node.value, imported)}.{node.attr}"
    return ""


def _is_random(node: ast.Call, name: str) -> bool:
    """Whether ``node``, a call of ``name``, draws from, or makes, a generator of random numbers that nobody gave a
    seed."""
    module, _, last = name.rpartition(".")
    given = bool(node.args or node.keywords)
    if last in GENERATORS:
        return not given
    # ``shuffle`` of a data set takes its seed itself.
    is_drawn = module in DRAWS or module.endswith(".random") or (module == "torch" and last in TORCH_DRAWS)
    return is_drawn or (isinstance(node.func, ast.Attribute) and last == "shuffle" and not given)


def _open_ends(file: Path) -> Iterator[str]:
    """Where the code in ``file`` reads something, and where it rests on chance, the clock or its surroundings."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    imported = _imported(tree)
    nodes = list(ast.walk(tree))
    modules = {name.partition(".")[0] for name in imported.values()}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    calls = {node: _whole_name(node.func, imported) for node in nodes if isinstance(node, ast.Call)}
    has_seed = any(
        name.rpartition(".")[2] in ("seed", "manual_seed") and (node.args or node.keywords)
        for node, name in calls.items()
    )
    for node in nodes:
        where = f"{file.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = _whole_name(node, imported)
            module = name.partition(".")[0]
            is_around = name in SURROUNDINGS or (module in MODULES_OF_SURROUNDINGS and module in modules)
            if (name in READS_BY_ANY_NAME - made) or is_around or name.endswith(".environ"):
                yield f"{where} reads files or settings"
            elif name == "hash" and name not in made:
                yield f"{where} gives something else every time: hash() of a text differs from process to process"
        if not isinstance(node, ast.Call):
            continue
        name = calls[node]
        last = name.rpartition(".")[2]
        is_open = last in ("import_module", "__import__") and not all(
            isinstance(one, ast.Constant) for one in node.args
        )
        if last in READS or is_open:
            yield f"{where} reads files or settings"
        elif last in CLOCK:
            yield f"{where} gives something else every time ({last}): do without it"
        elif _is_random(node, name) and not has_seed:
            yield f"{where} gives something else every time, by chance: give it a seed"


def _content_of_folder(text: str, folder: Path) -> str:
    if not folder.is_dir():
        raise TaskFileError(f"{text}: there is no folder {folder}")
    names = {path.relative_to(folder).as_posix(): _digest(path) for path in files_below(folder)}
    return identity(names)


def _digest(path: Path) -> str:
    try:
        return content_digest(path)
    except OSError as error:
        raise TaskFileError(f"cannot read {path}: {error.strerror or error}") from error


def unkept(identities: Sequence[TaskIdentity]) -> list[str]:
    """Why scores of some of these tasks must not be kept; empty where they may be."""
    return [reason for found in identities for reason in found.unknown]


__all__ = ["TaskFileError", "TaskIdentity", "group_members", "task_identity", "unkept"]
