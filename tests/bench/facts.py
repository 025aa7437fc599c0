"""What a figure depends on: the machine, the disk, the versions and the commit. No name of a host, and no path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "psycopg", "psycopg-binary", "psycopg-c", "psycopg-pool", "asyncpg", "sqlalchemy", "pgqueuer", "procrastinate", "dbos",
)  # fmt: skip
# By how the kernel names a disk. What is below a virtual one only its host knows.
DISKS = {
    "nvme": "NVMe",
    "vd": "virtual disk",
    "xvd": "virtual disk",
    "dm-": "device mapper",
    "md": "RAID",
    "mmcblk": "card",
}


def machine() -> str:
    parts = [f"{os.cpu_count()} × {_processor()}", platform.machine()]
    if memory := re.search(r"MemTotal: +(\d+) kB", _read("/proc/meminfo")):
        parts.append(f"{int(memory[1]) / 2**20:.1f} GiB of memory")
    return ", ".join([*parts, f"{platform.system()} {platform.release()}"])


def _processor() -> str:
    found = re.search(r"^(?:model name|Model|cpu model)\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return " ".join(found[1].split()) if found else "cores of a kind that is not told"


def disk(folder: Path) -> str:
    """The file system of a folder, and what kind of disk it is on, as far as this can be seen without being root."""
    best, found = 0, ("not known", "")
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        device, mounted = left.split()[2], left.split()[4]
        place = Path(mounted.encode().decode("unicode_escape"))
        if (
            folder.resolve().is_relative_to(place) and len(place.parts) >= best
        ):  # of two at one place, the later is seen
            best, found = len(place.parts), (right.split()[0], device)
    kind, device = found
    block = Path("/sys/dev/block", device).resolve()
    if not device or not block.is_dir():
        return kind
    if (block / "partition").exists():
        block = block.parent
    named = next((text for begins, text in DISKS.items() if block.name.startswith(begins)), None)
    turns = _read(block / "queue" / "rotational").strip()
    return f"{kind}, {named or {'0': 'solid-state disk', '1': 'hard disk'}.get(turns, 'a disk of another kind')}"


def commit() -> str:
    """Of this checkout, and whether it is what was run."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None or not (ROOT / ".git").exists():  # what lies in somebody else's checkout is not that
        return "not a checkout"
    changed = _git("status", "--porcelain") or ""
    return f"{head}, {len(changed.splitlines())} files differ from it" if changed else f"{head}, unchanged"


def versions() -> dict[str, str]:
    """Drivers and peers, as far as they are there."""
    found = {"psycopg": f"{psycopg.pq.__impl__}, libpq {_libpq()}"}
    for name in PACKAGES:
        try:
            number = version(name)
        except PackageNotFoundError:
            continue
        found[name] = f"{number} ({found[name]})" if name in found else number
    return found


def _libpq() -> str:
    number = psycopg.pq.version()
    return f"{number // 10_000}.{number % 10_000}"


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read(path: str | Path) -> str:
    """A file of the kernel's; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
