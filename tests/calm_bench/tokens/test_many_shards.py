"""Text in more shards than a process may have files open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.config import Tokens
from calm_bench.tokens import TokensReport

OPEN = """
import resource, sys
from calm_bench.tokens import TokenStream
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
print(len(TokenStream.open(sys.argv[1], "train")))
"""


@pytest.mark.parametrize("most", [512, 128])
def test_the_limit_of_the_shell_is_raised_and_none_is_taken_for_damage(
    write: Callable[[list[str], Tokens], tuple[Path, TokensReport]], most: int
) -> None:
    folder, report = write(["some text"] * 20, Tokens(shard_tokens=1))
    assert report.shards["train"] == 200
    command = [sys.executable, "-c", OPEN, str(folder), str(most)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if most == 512:
        assert found.stdout == "200\n", found.stderr
    else:
        assert "has more shards than this process may have files open (128): raise the limit" in found.stderr
        assert "is damaged" not in found.stderr
