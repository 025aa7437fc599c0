"""A machine of its own, as far as the network can tell: a network namespace with one cable to this one, which can be cut without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import needs
from tests.support_core import ROOT

HERE, THERE = "10.222.77.1", "10.222.77.2"


class Afar:
    """cut: whatever is sent is gone from now on, both ways, and nobody is told."""

    def __init__(self, holder: int) -> None:
        self._holder = holder
        self._near, self._far = f"pgs{holder}h", f"pgs{holder}c"
        self._do(f"ip link add {self._near} type veth peer name {self._far} netns {holder}")
        self._do(f"ip addr add {HERE}/30 dev {self._near}")
        self._do(f"ip link set {self._near} up")
        self._do(f"ip addr add {THERE}/30 dev {self._far}", inside=True)
        self._do(f"ip link set {self._far} up", inside=True)
        # The server listens on 127.0.0.1 only. There is no loopback on the other side, so that address may lead here.
        self._do(f"sysctl -qw net.ipv4.conf.{self._near}.route_localnet=1")
        self._do(f"sysctl -qw net.ipv4.conf.{self._far}.route_localnet=1", inside=True)
        self._do(f"ip route add 127.0.0.1 via {HERE}", inside=True)

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python program there."""
        return subprocess.Popen(
            [*self._inside(), sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def cut(self) -> None:
        self._do(f"tc qdisc replace dev {self._far} root blackhole", inside=True)
        self._do(f"tc qdisc replace dev {self._near} root blackhole")

    def _inside(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder), "-n"]

    def _do(self, command: str, *, inside: bool = False) -> None:
        subprocess.run([*(self._inside() if inside else []), *command.split()], check=True)


@contextmanager
def afar() -> Iterator[Afar]:
    """Skips where a network namespace may not be made. With its holder it goes, cable and all."""
    for program in ("ip", "tc", "unshare", "nsenter", "sysctl"):
        needs(program)
    if subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("a network namespace may not be made here")
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            yield Afar(holder.pid)
        finally:
            holder.kill()
