"""Leases in an object store: one holder at a time, none for long after its death."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.failures import cause_of
from pipelines.store import object_leases
from pipelines.store.errors import StoreForbidden, StoreUnreachable
from pipelines.store.holder import this_process
from pipelines.store.lease import LeaseManager
from pipelines.store.object_leases import ObjectLeases, leases_at
from pipelines.store.object_store import ObjectStore
from pipelines.store.sweeping import find_waste, remove
from tests.object_stores import objects_of

SHORT = {"expiry_s": 3.0, "heartbeat_s": 0.3}
"""For what expires: whoever holds a lease of these may lose it on a machine that is busy for three seconds."""


def wait_for(condition: Callable[[], Any]) -> Any:
    """Every step of these tests may take a busy machine seconds."""
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def _elsewhere(home: ObjectStore, name: str, **changes: Any) -> str:
    """A claim of a process on another host, of which nothing is known but what it writes."""
    holder = replace(this_process(), host="elsewhere", **changes)
    key = f"leases/{name}/{time.time_ns():020d}-{holder.token}.json"
    home.write(key, json.dumps(asdict(holder)).encode())
    return key


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_one_holder_at_a_time(url: str) -> None:
    first, second = leases_at(ObjectStore(url)), leases_at(ObjectStore(url))
    lease = first.acquire("stage-1")
    assert lease is not None
    assert second.acquire("stage-1") is None
    assert first.acquire("stage-1") is None
    holder = second.holder("stage-1")
    assert holder is not None
    assert holder.pid == os.getpid()
    assert list(second.held()) == ["stage-1"]
    other = second.acquire("stage-2")
    assert other is not None
    other.release()
    lease.release()
    assert second.holder("stage-1") is None
    with second.acquire("stage-1") or pytest.fail("it was given back"):
        assert first.holder("stage-1") is not None
    assert not ObjectStore(url).list("leases")


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_of_many_that_ask_all_the_time_one_has_it_at_any_time(url: str) -> None:
    rivals = [leases_at(ObjectStore(url)) for _ in range(4)]
    start, inside, most, served = threading.Barrier(len(rivals)), [0], [0], []

    def ask(claims: LeaseManager) -> None:
        start.wait()
        for _ in range(2):
            while (lease := claims.acquire("wanted")) is None:
                time.sleep(random.uniform(0.0, 0.05))
            with lease:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                served.append(lease.lost)
                inside[0] -= 1

    threads = [threading.Thread(target=ask, args=(claims,)) for claims in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert served == [False] * 2 * len(rivals)
    assert not ObjectStore(url).list("leases")


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_claim_that_nobody_renews_expires(url: str) -> None:
    home = ObjectStore(url)
    dead = _elsewhere(home, "stage-1")
    assert leases_at(home).acquire("stage-1") is None
    lease = wait_for(lambda: leases_at(home, **SHORT).acquire("stage-1"))
    assert not home.exists(dead)
    lease.release()


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_claim_is_renewed_for_as_long_as_it_is_held(url: str) -> None:
    home = ObjectStore(url)
    lease = leases_at(home, expiry_s=600.0, heartbeat_s=0.3).acquire("stage-1")
    assert lease is not None
    (claim,) = home.list("leases").values()
    # Twice: S3 tells whole seconds.
    for seconds in (1, 2):
        wait_for(lambda seconds=seconds: home.list("leases").popitem()[1].modified >= claim.modified + seconds)
    assert not lease.lost
    lease.release()


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_claim_of_a_process_that_is_gone_is_free_at_once(url: str) -> None:
    home = ObjectStore(url)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    holder = replace(this_process(), pid=child.pid)
    home.write("leases/stage-1/00000000000000000001-x.json", json.dumps(asdict(holder)).encode())
    assert leases_at(home).holder("stage-1") is None
    lease = leases_at(home).acquire("stage-1")
    assert lease is not None
    lease.release()


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_on_this_host_ends_no_other(
    url: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ObjectStore(url)
    claims, soon = leases_at(home), leases_at(home, expiry_s=0.5, heartbeat_s=0.1)
    for manager in (claims, soon):
        lease = manager.acquire("stage-1")
        assert lease is not None
        lease.release()
    living = _elsewhere(home, "study-a")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    assert claims.holder("study-a") is not None
    assert claims.sweep() == []
    assert home.exists(living)
    wait_for(lambda: soon.holder("study-a") is None)


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.parametrize("holds", [True, False], ids=["holds one", "only looks"])
def test_who_writes_slowly_takes_nobody_for_dead(url: str, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that sleeps amid a write, or whose network is away for a while: others went on renewing theirs."""
    home, waited, clock, write = ObjectStore(url), [0.0], object_leases.uptime_s, ObjectStore.write
    living = _elsewhere(home, "study-a")

    def slow(self: ObjectStore, key: str, content: bytes) -> None:
        waited[0] += 2 * object_leases.EXPIRY_S
        write(self, key, content)

    claims = leases_at(home)
    with monkeypatch.context() as patch:
        patch.setattr(object_leases, "uptime_s", lambda: clock() + waited[0])
        with patch.context() as slowly:
            slowly.setattr(ObjectStore, "write", slow)
            lease = claims.acquire("stage-1") if holds else None
            assert set(claims.held()) == ({"stage-1", "study-a"} if holds else {"study-a"})
        assert claims.sweep() == []
        assert home.exists(living)
        if lease is not None:
            lease.release()


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.parametrize("slow", ["claim", "renewal"])
def test_a_claim_that_was_long_in_writing_is_lost_to_who_came_meanwhile(
    url: str, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written at some time in between, and may have expired since: who looked then took the lease."""
    home, write = ObjectStore(url), ObjectStore.write
    claims = ObjectLeases(home, heartbeat_s=0.5)

    def slowly(self: ObjectStore, key: str, content: bytes) -> None:
        time.sleep(1.2)
        write(self, key, content)

    with monkeypatch.context() as patch:
        if slow == "claim":
            patch.setattr(ObjectStore, "write", slowly)
        grant = claims.grant("stage-1")
        assert grant is not None
        if slow == "renewal":
            patch.setattr(ObjectStore, "write", slowly)
            assert grant.renew()
    _elsewhere(home, "stage-1")
    assert not grant.renew()


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_who_only_looks_goes_by_the_clock_of_the_store(
    host: Callable[..., Any], seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host whose clock is an hour off, ``store gc --delete`` took what running stages had uploaded."""
    cleaner = host()
    home = objects_of(cleaner)
    claims = [_elsewhere(home, "count-0a"), _elsewhere(home, "study-tiny-0b.journal-1")]
    home.write("stages/count/0a/1f/model.bin", b"on its way")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    assert cleaner.leases.held().keys() == {"count-0a", "study-tiny-0b.journal-1"}
    assert find_waste(cleaner) == []
    remove(cleaner, [])
    assert home.list("leases").keys() == set(claims)
    assert home.exists("stages/count/0a/1f/model.bin")
    assert not home.list("stop"), "what it asked the time by is gone"
    # Of one that has died, on whichever host.
    aged = leases_at(home, expiry_s=0.5, heartbeat_s=0.1)
    time.sleep(0.6)
    assert aged.held() == {}


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_what_is_uploaded_while_waste_is_looked_for_stays(
    host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stage that is taken up after the leases of before were asked for: small ones take a moment."""
    cleaner, real = host(), ObjectStore.list

    def beginning(home: ObjectStore, prefix: str) -> Any:
        if prefix == "stages" and not real(home, "leases"):
            _elsewhere(home, "count-0a")
            home.write("stages/count/0a/1f/model.bin", b"on its way")
        return real(home, prefix)

    monkeypatch.setattr(ObjectStore, "list", beginning)
    assert [item.what for item in find_waste(cleaner)] == []


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_leases_of_a_store_that_may_only_be_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = ObjectStore(url)
    _elsewhere(home, "stage-1")

    def refuse(self: ObjectStore, key: str, content: bytes) -> None:
        raise StoreForbidden("read only")

    monkeypatch.setattr(ObjectStore, "write", refuse)
    assert list(leases_at(home).held()) == ["stage-1"]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_holder_notices_that_its_claim_was_taken_over(url: str) -> None:
    home = ObjectStore(url)
    lease = leases_at(home, **SHORT).acquire("stage-1")
    assert lease is not None
    new = _elsewhere(home, "stage-1")

    def is_lost() -> bool:
        # Again where it was being written just then.
        home.delete(key for key in home.list("leases") if key != new)
        return lease.lost

    wait_for(is_lost)
    lease.release()
    assert list(home.list("leases")) == [new]


def test_garbage_among_claims_is_no_holder_and_can_go(host: Callable[..., Any]) -> None:
    store = host()
    for key in ("leases/stage-1/notes.txt", "leases/odd", "leases/stage-1/1-x.json", "leases/../../etc/1.json"):
        objects_of(store).write(key, b"[1]") if ".." not in key else None
    assert store.leases.holder("stage-1") is None
    remove(store, find_waste(store))
    assert not objects_of(store).list("leases")


def test_a_heartbeat_must_be_much_faster_than_the_expiry(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot keep a lease"):
        leases_at(ObjectStore(f"file://{tmp_path}"), expiry_s=1.0, heartbeat_s=0.5)


def test_a_store_that_is_away_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "squeamish-ossifrage")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("pipelines.store.object_store.PAUSES_S", (0.01,))
    with pytest.raises(StoreUnreachable, match="s3://bucket/x/leases") as caught:
        ObjectStore("s3://bucket/x").list("leases")
    assert cause_of(caught.value) == "transient"
    assert cause_of(StoreForbidden("no")) == "permanent"
    assert "ossifrage" not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
