"""Text in more shards than a process may have files open."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.config import Experiment, Tokens
from calm_bench.overrides import apply_settings
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
        # As it is advised; the limit was raised above.
        named = re.search(r"or tokens\.(\w+), or set (\S+) and (\S+)$", found.stderr.strip())
        assert named is not None, found.stderr
        folder, _ = write(["some text"] * 20, Tokens().model_copy(update={named[1]: 100}))
        fewer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert fewer.stdout == "200\n", fewer.stderr
        for setting in named.groups()[1:]:
            apply_settings(Experiment(), {setting: 4})
