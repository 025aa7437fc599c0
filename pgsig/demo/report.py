"""The operator `report`: a page about all models so far, and the last of them as a table in its log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from pgsig import run
from pgsig.demo.folder import Folder, Verdict

LAST = 12  # models in the table of the log
WIDTH, HEIGHT = 720, 200  # of the drawing

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .2em .6em; border-bottom: 1px solid #ddd } th:first-child, td:first-child { text-align: left }
.passed { color: #17692d } .failed { color: #8a3b12 } svg { width: 100%; height: auto } p { color: #555 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #16181c } th, td { border-color: #333 } p { color: #aaa }
  .passed { color: #6fcf8a } .failed { color: #e0996b } }
"""


def main() -> None:
    """Write the page, print the table."""
    folder = Folder()
    verdicts = list(folder.verdicts())
    now = datetime.now(UTC)
    folder.write_text(folder.report, page(verdicts, folder.served, now))
    passed = [one for one in verdicts if one.verdict == "passed"]
    run.result({"models": len(verdicts), "passed": len(passed), "served": folder.served, "page": folder.report.name})
    print(table(verdicts[-LAST:], folder.served))
    print(f"{len(passed)} of {len(verdicts)} models passed; the whole table is in {folder.report.resolve()}")


def table(verdicts: Sequence[Verdict], served: str) -> str:
    """Models as aligned text."""
    lines = [f"{'model':<9}{'samples':>9}{'now':>8}{'all':>8}{'rival':>8}{'has':>8}  verdict"]
    lines += [
        f"{one.model:<9}{one.samples:>9,}{one.accuracy:>8.1%}{one.overall:>8.1%}{one.served or '-':>8}"
        f"{one.served_accuracy:>8.1%}  {one.verdict}{' (served)' if one.model == served else ''}"
        for one in verdicts
    ]
    return "\n".join(lines)


def page(verdicts: Sequence[Verdict], served: str, now: datetime) -> str:
    """Models as a page that needs nothing else."""
    rows = "\n".join(
        f"<tr><td>{escape(one.model)}{' (served)' if one.model == served else ''}</td><td>{one.samples:,}</td>"
        f"<td>{one.accuracy:.1%}</td><td>{one.overall:.1%}</td><td>{escape(one.served) or '–'}</td>"
        f'<td>{one.served_accuracy:.1%}</td><td class="{escape(one.verdict)}">{escape(one.verdict)}</td></tr>'
        for one in reversed(verdicts)
    )
    passed = sum(one.verdict == "passed" for one in verdicts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Models of the demonstration</title><style>{STYLE}</style></head><body>
<h1>Models</h1>
<p>{passed} of {len(verdicts)} passed, by {now:%Y-%m-%d %H:%M:%S} UTC. A model passes when it is right more often than the one
that is served, at the mix of digits that comes in at its time (line). Dots: the same model, all digits counting alike.</p>
{drawing(verdicts)}
<table><thead><tr><th>model</th><th>samples</th><th>now</th><th>all</th><th>rival</th><th>has</th><th>verdict</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""


def drawing(verdicts: Sequence[Verdict]) -> str:
    """The accuracies from the first model to the last: 50 % at the bottom, 100 % at the top."""
    if not verdicts:
        return "<p>No model was judged yet.</p>"
    step = WIDTH / max(1, len(verdicts) - 1)

    def at(number: int, share: float) -> tuple[float, float]:
        return round(number * step, 1), round(HEIGHT * (1 - max(0.0, share - 0.5) * 2), 1)

    line = " ".join("{},{}".format(*at(i, one.accuracy)) for i, one in enumerate(verdicts))
    dots = "".join('<circle cx="{}" cy="{}" r="2"/>'.format(*at(i, one.overall)) for i, one in enumerate(verdicts))
    rules = "".join(f'<path d="M0 {y}H{WIDTH}" stroke="#8884"/>' for y in range(0, HEIGHT + 1, HEIGHT // 5))
    return (
        f'<svg viewBox="-4 -4 {WIDTH + 8} {HEIGHT + 8}" role="img" aria-label="accuracy of each model, 50 to 100 percent">{rules}'
        f'<g fill="#888">{dots}</g><polyline points="{line}" fill="none" stroke="#2f6fde" stroke-width="2"/></svg>'
    )
