"""Where the directories live that are not Python: `sql`, `migrations` and `web`."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def room(name: str) -> Path:
    """The directory `name`: inside the package when installed from a wheel, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
