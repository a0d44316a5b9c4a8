"""A PostgreSQL server of our own, as the distribution ships it: on loopback, in a folder that goes away."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

USER = "calm"
PASSWORD = f"pass/word@{secrets.token_hex(4)}"
"""With what an address must escape, and what no text of ours may show."""


@dataclass(frozen=True)
class Server:
    """A running cluster; made with the system's programs, as a user who is not root."""

    programs: Path
    folder: Path
    port: int
    user: str | None
    """Who runs it, where that is not ourselves."""
    databases: list[str] = field(default_factory=list)

    def uri(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"test_{len(self.databases)}"
        self.databases.append(name)
        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.uri(name)

    def query(self, database: str, statement: LiteralString) -> list[Any]:
        """The first column of all rows that ``statement`` gives."""
        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [row[0] for row in cursor] if cursor.description else []

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "''",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": 40,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self.run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", "data")

    def run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            user=self.user,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Started once; each test takes a database of its own from it."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    user = _somebody_else() if os.geteuid() == 0 else None
    # Not in pytest's folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp(prefix="calm-bench-postgresql-"))
    server = Server(programs, folder, _free_port(), user)
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        access = ("--username", USER, "--auth", "scram-sha-256", "--pwfile", "password")
        server.run("initdb", "-D", "data", "--encoding", "UTF8", "--no-sync", *access)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgresql: Server) -> Callable[[], str]:
    """Makes an empty database and gives its address."""
    return postgresql.new_database


def _programs() -> Path | None:
    """The folder of the newest ``initdb``: Debian keeps the server's programs off the PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def _somebody_else() -> str:
    """PostgreSQL refuses to run as root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("there is no user but root to run PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
