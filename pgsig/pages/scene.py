"""The workflow graph as a picture: which signals reach which operators, and what those emit. Pure: rows in, a picture out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgsig.condition.pattern import matches
from pgsig.pages import tree
from pgsig.pages.graph import Box, layout
from pgsig.pages.state import Face, face
from pgsig.store.reading import Row

LETTER = 7.3  # width of a character of the node labels
LONGEST = 30  # characters of a label
MOST = 80  # operators in one picture: beyond, it is no picture any more


@dataclass(frozen=True)
class SceneNode:
    """kind: signal, clock, batch or streaming. key: pattern of the signals at which it pulses."""

    name: str
    kind: str
    text: str
    title: str
    href: str = ""
    key: str = ""
    face: Face | None = None
    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class SceneEdge:
    """kind: the action in lower case, or `emits`. words: predicate, for people."""

    kind: str
    source: str
    target: str
    words: str
    path: str = ""


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    nodes: tuple[SceneNode, ...]
    edges: tuple[SceneEdge, ...]
    left_out: int = 0


def scene(operators: Sequence[Row], rules: Iterable[Row], emitted: Iterable[Row]) -> Scene:
    """Draw operators with their rules and what their runs emitted of late."""
    shown = {row["operator_id"]: row for row in operators[:MOST]}
    nodes: dict[str, SceneNode] = {}
    for operator in shown.values():
        nodes[_of(operator)] = _operator(operator)
    edges: dict[tuple[str, str, str], SceneEdge] = {}
    for rule in rules:
        row = shown.get(rule["operator_id"])
        if row is None:
            continue
        for wait in tree.waits(rule["condition"]):
            node = _clock(row, wait.text) if wait.clock else _signal(row["namespace"], wait.text)
            nodes.setdefault(node.name, node)
            words = f"{rule['action']} {row['operator']} when {tree.sentence(rule['condition'])}"
            kind = "holds" if wait.negated else rule["action"].lower()
            _join(edges, SceneEdge(kind, node.name, _of(row), words))
    _add_emitted(nodes, edges, shown, emitted)
    return _placed(nodes, list(edges.values()), len(operators) - len(shown))


def _add_emitted(
    nodes: dict[str, SceneNode],
    edges: dict[tuple[str, str, str], SceneEdge],
    shown: dict[int, Row],
    emitted: Iterable[Row],
) -> None:
    """Edges from operators to the signals that they make: those that their runs emitted, and the states of their runs."""
    waited = [node for node in nodes.values() if node.kind == "signal"]
    for item in emitted:
        row = shown.get(item["operator_id"])
        if row is None:
            continue
        prefix = f"signal:{row['namespace']}:"
        targets = [n for n in waited if n.name.startswith(prefix) and matches(n.key, item["key"])]
        if not targets:
            targets = [nodes.setdefault(f"{prefix}{item['key']}", _signal(row["namespace"], item["key"]))]
        for target in targets:
            _join(edges, SceneEdge("emits", _of(row), target.name, f"{row['operator']} emits {item['key']}"))
    for node in waited:
        if not node.key.startswith("run."):
            continue
        for maker in shown.values():
            stem = f"run.{maker['workflow']}.{maker['operator']}"
            if node.name.startswith(f"signal:{maker['namespace']}:") and (
                matches(node.key, f"{stem}.{node.key.rpartition('.')[2]}")
            ):
                _join(
                    edges,
                    SceneEdge(
                        "emits",
                        _of(maker),
                        node.name,
                        f"runs of {maker['operator']} become {node.key.rpartition('.')[2]}",
                    ),
                )


def _join(edges: dict[tuple[str, str, str], SceneEdge], edge: SceneEdge) -> None:
    """One edge for each pair and kind; what several rules say is said together."""
    at = (edge.source, edge.target, edge.kind)
    known = edges.get(at)
    if known is None:
        edges[at] = edge
    elif edge.words not in known.words:
        edges[at] = SceneEdge(*at[2:], *at[:2], f"{known.words}\n{edge.words}")


def _placed(nodes: dict[str, SceneNode], edges: list[SceneEdge], left_out: int) -> Scene:
    boxes = [Box(node.name, *_size(node)) for node in nodes.values()]
    drawing = layout(boxes, [(edge.source, edge.target) for edge in edges])
    placed = []
    for node in nodes.values():
        at = drawing.nodes[node.name]
        placed.append(
            SceneNode(
                node.name,
                node.kind,
                node.text,
                node.title,
                node.href,
                node.key,
                node.face,
                at.x,
                at.y,
                at.width,
                at.height,
            )
        )
    drawn = [SceneEdge(e.kind, e.source, e.target, e.words, path) for e, path in zip(edges, drawing.paths, strict=True)]
    return Scene(drawing.width, drawing.height, tuple(placed), tuple(drawn), left_out)


def _size(node: SceneNode) -> tuple[int, int]:
    if node.face is None:
        return round(len(node.text) * LETTER) + 22 + (14 if node.kind == "clock" else 0), 26
    return max(120, round(max(len(node.text) * (LETTER + 0.8), len(node.face.text) * 6.6 + 18)) + 30), 48


def _of(row: Row) -> str:
    return f"operator:{row['operator_id']}"


def _operator(row: Row) -> SceneNode:
    seen = face(row["instances"])
    text = _cut(row["operator"])
    title = f"{row['workflow']}.{row['operator']}, {row['kind']}: {seen.text}"
    return SceneNode(_of(row), row["kind"], text, title, f"/operators/{row['workflow']}/{row['operator']}", face=seen)


def _signal(namespace: str, key: str) -> SceneNode:
    segments = key.split(".")
    # run.<workflow>.<operator>.<state> says the same in two words beside its operator; the title has all of it.
    text = f"{segments[2]} {segments[3]}" if segments[0] == "run" and len(segments) == 4 else key
    return SceneNode(f"signal:{namespace}:{key}", "signal", _cut(text), key, f"/signals?key={key}", key)


def _clock(row: Row, words: str) -> SceneNode:
    own = f"tick.{row['workflow']}.{row['operator']}"
    begin, _, last = words.rpartition(" ")
    short = begin if last == "UTC" or "/" in last else words  # the zone stands in the title
    return SceneNode(f"clock:{row['operator_id']}:{words}", "clock", _cut(short), words, f"/signals?key={own}", own)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
