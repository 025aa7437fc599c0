"""The embedded server: it keeps its data, never outlives its parent, and says why it cannot start."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgsig.embedded import Binaries, EmbeddedPostgres, binaries, find_binaries
from pgsig.embedded import server as of_server
from pgsig.embedded.identity import choose_identity
from pgsig.errors import PgsigError
from tests.support import wait_for

SMALL = {"shared_buffers": "8MB", "max_connections": "20"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder that other users can pass through: the server may run as one of them."""
    path = Path(tempfile.mkdtemp(prefix="pgsig-embedded-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder / "data", fsync=False, settings=SMALL)
    yield server
    server.stop("immediate")


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def do(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())


def test_data_and_address_survive_a_restart(server: EmbeddedPostgres) -> None:
    server.start()
    do(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    before = server.dsn()
    server.stop()
    assert server.pid is None
    server.start()
    assert server.dsn() == before
    assert ask(server, "SELECT answer FROM kept") == 42


def test_start_and_stop_may_be_repeated(server: EmbeddedPostgres) -> None:
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()


def test_answers_only_locally_and_only_with_the_password(server: EmbeddedPostgres) -> None:
    server.start()
    password = server.data_dir / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == ""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn(), password="wrong")  # an explicit argument wins over the DSN


def test_settings_and_durability(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings={**SMALL, "work_mem": "3MB"}) as server:
        assert ask(server, "SHOW fsync") == "on"
        assert ask(server, "SHOW work_mem") == "3MB"
        assert server.version.split(".")[0] == str(ask(server, "SHOW server_version")).split(".")[0]
    assert not server.running


def test_recovers_after_every_process_was_killed(server: EmbeddedPostgres) -> None:
    server.start()
    do(server, "CREATE TABLE kept AS SELECT 1 AS one")
    do(server, "CHECKPOINT")
    server.kill()
    assert (server.data_dir / "cluster" / "postmaster.pid").exists()
    server.start()
    assert ask(server, "SELECT one FROM kept") == 1


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(server: EmbeddedPostgres) -> None:
    server.start()
    server.kill()
    file = server.data_dir / "cluster" / "postmaster.pid"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    server.start()
    assert ask(server, "SELECT 1") == 1


def test_an_interrupted_initdb_is_done_again(server: EmbeddedPostgres) -> None:
    (server.data_dir / "cluster.part" / "base").mkdir(parents=True)
    (server.data_dir / "lock").touch()
    server.start()
    assert ask(server, "SELECT 1") == 1


def test_two_at_once_in_one_directory_are_refused(server: EmbeddedPostgres) -> None:
    server.start()
    other = EmbeddedPostgres(server.data_dir)
    with pytest.raises(PgsigError, match=f"in use by the server with process id {server.pid}") as caught:
        other.start()
    assert caught.value.code == "PS805"
    assert other.dsn() == server.dsn()
    other.stop()
    wait_for(lambda: not server.running)


def test_a_directory_with_other_files_is_left_alone(folder: Path) -> None:
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(PgsigError, match="holds other files"):
        EmbeddedPostgres(folder).start()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_port_that_is_taken_is_named(server: EmbeddedPostgres, folder: Path) -> None:
    server.start()
    with pytest.raises(PgsigError, match=f"port {server.port} is taken"):
        EmbeddedPostgres(folder / "second", port=server.port, fsync=False).start()


def test_a_kept_port_that_was_taken_meanwhile_is_replaced(
    server: EmbeddedPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    taken = server.port
    with EmbeddedPostgres(folder / "second", fsync=False, settings=SMALL) as second:
        second.stop()
        (second.data_dir / "port").write_text(str(taken))
        again = EmbeddedPostgres(second.data_dir, fsync=False, settings=SMALL)
        # Even when the look said that it was free: somebody may be faster.
        looks = iter([True])
        real = of_server._port_is_free
        monkeypatch.setattr(of_server, "_port_is_free", lambda port: next(looks, None) or real(port))
        with again:
            assert again.port != taken
            assert ask(again, "SELECT 1") == 1


def test_another_major_version_is_refused_with_the_way_out(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data_dir / "cluster" / "PG_VERSION").write_text("11\n")
    with pytest.raises(PgsigError, match="was made by Postgres 11, but") as caught:
        server.start()
    assert caught.value.code == "PS806"
    assert "pg_dump" in caught.value.fix


def test_too_old_programs_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgres", "initdb"):
        program = folder / name
        program.write_text('#!/bin/sh\necho "postgres (PostgreSQL) 14.23"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PGSIG_PG_BIN", str(folder))
    with pytest.raises(PgsigError, match=r"14\.23 .* too old: pgsig needs 15 or later") as caught:
        find_binaries()
    assert caught.value.where == "PGSIG_PG_BIN"


def test_missing_programs_are_named_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSIG_PG_BIN", str(folder / "nowhere"))
    with pytest.raises(PgsigError, match="does not hold working programs"):
        find_binaries()
    monkeypatch.delenv("PGSIG_PG_BIN")
    monkeypatch.setattr(binaries, "_candidates", lambda: iter(()))
    with pytest.raises(PgsigError, match="no Postgres programs") as caught:
        find_binaries()
    assert "pgsig[embedded]" in caught.value.fix


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    broken = EmbeddedPostgres(server.data_dir, fsync=False, settings={"shared_buffers": "enormous"})
    with pytest.raises(PgsigError, match=r"shared_buffers.*enormous") as caught:
        broken.start()
    assert str(broken.log) in caught.value.fix
    server.start()


def test_never_started_has_no_address(server: EmbeddedPostgres) -> None:
    with pytest.raises(PgsigError, match="no server was ever started"):
        server.dsn()


def test_the_thread_that_started_it_may_end(server: EmbeddedPostgres) -> None:
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        # Were the server tied to that thread, this would be cut off.
        connection.execute("SELECT pg_sleep(0.5)")
    assert server.running


PARENT = """
import sys
from pathlib import Path
from pgsig.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), fsync=False, die_with_parent=sys.argv[2] == "die",
                          settings={"shared_buffers": "8MB", "max_connections": "20"})
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def parent_of_a_server(data_dir: Path, fate: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(data_dir), fate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    return parent, int(parent.stdout.readline())


def end(parent: subprocess.Popen[str], number: signal.Signals) -> None:
    parent.send_signal(number)
    parent.communicate()


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_takes_the_server_along(server: EmbeddedPostgres, number: signal.Signals) -> None:
    parent, pid = parent_of_a_server(server.data_dir, "die")
    assert server.pid == pid
    assert ask(server, "SELECT 1") == 1
    end(parent, number)
    wait_for(lambda: server.pid is None, 10)
    server.start()
    assert ask(server, "SELECT 1") == 1


@pytest.mark.faults
def test_the_next_start_waits_for_the_server_of_a_killed_parent(server: EmbeddedPostgres) -> None:
    parent, pid = parent_of_a_server(server.data_dir, "die")
    end(parent, signal.SIGKILL)
    server.start()
    assert server.pid != pid
    assert ask(server, "SELECT 1") == 1


@pytest.mark.faults
def test_without_that_the_server_outlives_its_parent_until_stopped(server: EmbeddedPostgres) -> None:
    parent, pid = parent_of_a_server(server.data_dir, "live")
    end(parent, signal.SIGKILL)
    assert ask(server, "SELECT 1") == 1
    assert server.pid == pid
    server.stop()
    assert server.pid is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("way", ["namespace", "dropped"])
def test_as_root_nothing_outside_its_directory_is_changed(
    server: EmbeddedPostgres, folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "dropped":
        monkeypatch.setenv("PGSIG_NO_USERNS", "1")
    found: Binaries = find_binaries()
    identity = choose_identity(found)
    if way == "namespace" and identity.argument != way:
        pytest.skip("user namespaces are refused here")
    watched = [folder, *folder.parents, Path.home(), found.directory]
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in watched]
    server.start()
    assert ask(server, "SELECT 1") == 1
    assert [(path, path.stat().st_mode, path.stat().st_uid) for path in watched] == before
    assert (server.data_dir / "cluster").stat().st_uid == identity.user
    # And the other way round afterwards.
    server.stop()
    monkeypatch.setenv("PGSIG_NO_USERNS", "1" if way == "namespace" else "0")
    server.start()
    assert ask(server, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a normal user starts it as oneself")
def test_an_unreachable_directory_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSIG_NO_USERNS", "1")
    folder.chmod(0o700)
    with pytest.raises(PgsigError, match="denied") as caught:
        EmbeddedPostgres(folder / "data", fsync=False).start()
    assert "where a normal user can reach them" in caught.value.fix
