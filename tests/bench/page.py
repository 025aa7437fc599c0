"""The report as one HTML file: no script, nothing loaded, drawings of our own, light and dark as the reader's system is."""

from __future__ import annotations

from html import escape

from tests.bench.report import BASIS, Figure, Report, basis, short, sign, spread

STYLE = """
:root { color-scheme: light dark; --bg: #fdfdfc; --ink: #1d232b; --dim: #66707c; --line: #e2e4e0;
        --bar: #2f6f8f; --dot: #12303f; --yes: #1d7a46; --no: #b3372b; }
@media (prefers-color-scheme: dark) { :root { --bg: #14181d; --ink: #e4e7ea; --dim: #98a2ad;
        --line: #2b323a; --bar: #4f9dc0; --dot: #d6eefa; --yes: #5cc48a; --no: #f08a7d; } }
body { background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt, .dim { color: var(--dim); } dd { margin: 0; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } .yes { color: var(--yes); } .no { color: var(--no); }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .dim { fill: var(--dim); }
rect { fill: var(--bar); } circle { fill: var(--dot); fill-opacity: .55; } line { stroke: var(--line); }
"""

WIDE, ROW, LETTER = 860, 24, 6.2  # pixels: the whole drawing, a row, a letter of a name


def page(report: Report) -> str:
    about = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.about.items())
    rows = "".join(
        f'<tr><td>{escape(r.name)}</td><td class="n">{short(r.value)} {escape(r.unit)}</td><td class="n">{escape(r.goal)}</td>'
        f'<td class="n dim">{basis(r)}</td><td class="n dim">{spread(r)}</td>'
        f'<td class="{ {True: "yes", False: "no", None: "dim"}[r.met] }">{sign(r.met)}</td></tr>'
        for r in report.ratios
    )
    # Also those that have notes alone: what could not be measured says why.
    groups = dict.fromkeys(
        [*(figure.group for figure in report.figures), *(n.partition(": ")[0] for n in report.notes)]
    )
    parts = [
        f"<h2>{escape(group)}</h2>{_plots([figure for figure in report.figures if figure.group == group])}"
        + "".join(
            f'<p class="dim">{escape(n.partition(": ")[2])}</p>' for n in report.notes if n.startswith(f"{group}: ")
        )
        for group in groups
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>pgsig: benchmark</title><style>{STYLE}</style><h1>pgsig: benchmark</h1><dl>{about}</dl>"
        "<p>Everything ran on one machine, on one Postgres. Trust the ratios: both sides of one met the same noise. Beside each value "
        f"stands of how much it is made ({escape(BASIS)}), and the least and the most of its rounds.</p><p>{escape(report.summary())}</p>"
        "<h2>Ratios and goals</h2><div class=scroll><table><tr><th>what<th>measured<th>goal<th>of<th>rounds<th></tr>"
        f"{rows}</table></div>{''.join(parts)}</html>\n"
    )


def _plots(figures: list[Figure]) -> str:
    units: dict[str, list[Figure]] = {}
    for figure in figures:
        units.setdefault(figure.unit, []).append(figure)
    return "".join(_plot(unit, drawn) for unit, drawn in units.items())


def _plot(unit: str, figures: list[Figure]) -> str:
    """A bar for the median of each figure, a dot for each of its rounds."""
    most = max(max(figure.rounds, default=figure.value) for figure in figures) or 1.0
    start = 8 + round(LETTER * max(len(figure.name) for figure in figures))
    scale = (WIDE - start - 140) / most
    drawn = []
    for number, figure in enumerate(figures):
        y, end = number * ROW, start + max([figure.value, *figure.rounds]) * scale + 8
        drawn.append(
            f"<g><title>{escape(figure.name)}: {short(figure.value)} {escape(unit)}, {basis(figure)} {spread(figure)}</title>"
            f'<text x="{start - 8}" y="{y + 16}" text-anchor="end">{escape(figure.name)}</text>'
            f'<rect x="{start}" y="{y + 5}" width="{max(1.0, figure.value * scale):.1f}" height="14" rx="2"/>'
            + "".join(f'<circle cx="{start + x * scale:.1f}" cy="{y + 12}" r="2.5"/>' for x in figure.rounds)
            + f'<text class="dim" x="{end:.1f}" y="{y + 16}">{short(figure.value)} · {basis(figure)}</text></g>'
        )
    height = len(figures) * ROW
    return (
        f'<p class="dim">{escape(unit)}</p><svg viewBox="0 0 {WIDE} {height}" role="img" aria-label="{escape(unit)}">'
        f'<line x1="{start}" y1="0" x2="{start}" y2="{height}"/>{"".join(drawn)}</svg>'
    )
