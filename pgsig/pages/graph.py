"""A small layered layout: left to right, few crossings, the same picture for the same input. Pure; nothing here knows signals.

In four steps: turn edges that close a circle around, put each node one layer behind its farthest predecessor, split long
edges so that they bend around what lies between, then order each layer by where its neighbours are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X, GAP_Y, MARGIN = 56, 18, 12
DIP = 28
BEND_HEIGHT = 10  # room of a long edge that passes a layer
SWEEPS = 8


@dataclass(frozen=True)
class Box:
    """A node to place. name: unique."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Placed:
    """A node with the place of its top left corner."""

    name: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """Where everything is. paths: for each edge, in the order given, the `d` of an SVG path from its source to its target."""

    width: int
    height: int
    nodes: dict[str, Placed]
    paths: list[str]


def layout(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Place boxes and edges. An edge to a box that is not there is an error; one from a box to itself is drawn as a loop."""
    sizes = {box.name: (box.width, box.height) for box in boxes}
    forward = _without_circles(list(sizes), edges)
    layers_of = _layers(list(sizes), forward)
    chains, layers = _with_bends(sizes, layers_of, edges)
    _order(layers, chains)
    nodes, width, height = _coordinates(layers, sizes, chains)
    placed = {name: node for name, node in nodes.items() if name in sizes}
    if any(nodes[chain[1]].x <= nodes[chain[0]].x for chain in chains):
        height += DIP  # edges that lead back swing below what they lead from and to
    return Drawing(
        width, height, placed, [_path(chain, nodes, edge) for chain, edge in zip(chains, edges, strict=True)]
    )


def _without_circles(names: list[str], edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges with those turned around that lead back to where a walk through the graph came from. Loops are left out."""
    after: dict[str, list[str]] = defaultdict(list)
    incoming: dict[str, int] = defaultdict(int)
    for source, target in edges:
        if source != target:
            after[source].append(target)
            incoming[target] += 1
    state: dict[str, int] = {}
    back: set[tuple[str, str]] = set()
    # Begin with what nothing leads to: those are the left edge of the picture.
    for root in sorted(names, key=lambda name: incoming[name] > 0):
        if root in state:
            continue
        state[root] = 1
        walk = [(root, iter(after[root]))]
        while walk:
            name, rest = walk[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                walk.pop()
            elif state.get(following) == 1:
                back.add((name, following))
            elif following not in state:
                state[following] = 1
                walk.append((following, iter(after[following])))
    return [(t, s) if (s, t) in back else (s, t) for s, t in edges if s != t]


def _layers(names: list[str], forward: list[tuple[str, str]]) -> dict[str, int]:
    after: dict[str, list[str]] = defaultdict(list)
    before: dict[str, list[str]] = defaultdict(list)
    missing = dict.fromkeys(names, 0)
    for source, target in forward:
        after[source].append(target)
        before[target].append(source)
        missing[target] += 1
    layer = dict.fromkeys(names, 0)
    ready = [name for name in names if missing[name] == 0]
    order = []
    while ready:
        name = ready.pop(0)
        order.append(name)
        for target in after[name]:
            layer[target] = max(layer[target], layer[name] + 1)
            missing[target] -= 1
            if missing[target] == 0:
                ready.append(target)
    # What nothing leads to moves next to what it leads to: a short edge says more than an early place.
    for name in reversed(order):
        if not before[name] and after[name]:
            layer[name] = min(layer[target] for target in after[name]) - 1
    return layer


def _with_bends(
    sizes: dict[str, tuple[int, int]], layer_of: dict[str, int], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[str]], list[list[str]]]:
    layers: list[list[str]] = [[] for _ in range(max(layer_of.values(), default=0) + 1)]
    for name in sizes:
        layers[layer_of[name]].append(name)
    chains = []
    for number, (source, target) in enumerate(edges):
        step = 1 if layer_of[target] > layer_of[source] else -1
        chain = [source]
        for layer in range(layer_of[source] + step, layer_of[target], step):
            bend = f"\0{number}/{layer}"
            layers[layer].append(bend)
            chain.append(bend)
        chains.append([*chain, target])
    return chains, layers


def _order(layers: list[list[str]], chains: list[list[str]]) -> None:
    near: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for one, other in pairwise(chain):
            near[one].append(other)
            near[other].append(one)
    layer_of = {name: index for index, layer in enumerate(layers) for name in layer}
    best, fewest = [list(layer) for layer in layers], _crossings(layers, near, layer_of)
    for sweep in range(SWEEPS):
        onwards = sweep % 2 == 0
        indices = range(1, len(layers)) if onwards else range(len(layers) - 2, -1, -1)
        for index in indices:
            fixed = index - 1 if onwards else index + 1
            place = {name: position for position, name in enumerate(layers[fixed])}
            current = {name: position for position, name in enumerate(layers[index])}

            def weight(
                name: str, place: dict[str, int] = place, current: dict[str, int] = current
            ) -> tuple[float, int]:
                places = [place[other] for other in near[name] if other in place]
                return (sum(places) / len(places) if places else current[name], current[name])

            layers[index].sort(key=weight)
        crossings = _crossings(layers, near, layer_of)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _crossings(layers: list[list[str]], near: dict[str, list[str]], layer_of: dict[str, int]) -> int:
    total = 0
    for index in range(len(layers) - 1):
        place = {name: position for position, name in enumerate(layers[index + 1])}
        ends = [place[other] for name in layers[index] for other in sorted(near[name], key=lambda o: place.get(o, -1))
                if layer_of[other] == index + 1]  # fmt: skip
        total += sum(1 for i, a in enumerate(ends) for b in ends[i + 1 :] if a > b)
    return total


def _coordinates(
    layers: list[list[str]], sizes: dict[str, tuple[int, int]], chains: list[list[str]]
) -> tuple[dict[str, Placed], int, int]:
    near: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for one, other in pairwise(chain):
            near[other].append(one)
            near[one].append(other)
    height_of = {name: sizes.get(name, (0, BEND_HEIGHT))[1] for layer in layers for name in layer}
    middle: dict[str, float] = {}
    for layer in layers:
        y = 0.0
        for name in layer:
            middle[name] = y + height_of[name] / 2
            y += height_of[name] + GAP_Y
    for sweep in range(SWEEPS * 2):  # pull each node to its neighbours, as far as those beside it leave room
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wish = [sum(middle[o] for o in near[n]) / len(near[n]) if near[n] else middle[n] for n in layer]
            _settle(layer, wish, height_of, middle)
    top = min((middle[n] - height_of[n] / 2 for n in middle), default=0.0)
    nodes, x = {}, MARGIN
    for layer in layers:
        widest = max((sizes.get(name, (0, 0))[0] for name in layer), default=0)
        for name in layer:
            width = sizes[name][0] if name in sizes else widest
            left = x + (widest - width) // 2
            nodes[name] = Placed(
                name, left, round(middle[name] - height_of[name] / 2 - top) + MARGIN, width, height_of[name]
            )
        x += widest + GAP_X
    bottom = max((node.y + node.height for node in nodes.values()), default=0)
    return nodes, x - GAP_X + MARGIN, bottom + MARGIN


def _settle(layer: list[str], wish: list[float], height_of: dict[str, int], middle: dict[str, float]) -> None:
    """Middles as near to the wishes as the order and the gaps allow: neighbours that would overlap move as one block."""
    blocks: list[tuple[float, list[int]]] = []
    offsets, at = [], 0.0
    for index, name in enumerate(layer):
        if index:
            at += (height_of[layer[index - 1]] + height_of[name]) / 2 + GAP_Y
        offsets.append(at)
        blocks.append((wish[index] - at, [index]))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last, members = blocks.pop()
            first, earlier = blocks.pop()
            joined = earlier + members
            blocks.append(((first * len(earlier) + last * len(members)) / len(joined), joined))
    for shift, members in blocks:
        for index in members:
            middle[layer[index]] = shift + offsets[index]


def _path(chain: list[str], nodes: dict[str, Placed], edge: tuple[str, str]) -> str:
    first, last = nodes[chain[0]], nodes[chain[-1]]
    if edge[0] == edge[1]:
        x, y = first.x + first.width, first.y + first.height // 2
        return f"M{x} {y - 6}c34 -22 34 34 0 12"
    onwards = nodes[chain[1]].x > first.x
    if not onwards:  # leads back: leave below and come in from below, so that it is not taken for a forward edge
        points = [(first.x + first.width // 2, first.y + first.height)]
        points += [(nodes[n].x + nodes[n].width // 2, nodes[n].y + BEND_HEIGHT // 2) for n in chain[1:-1]]
        points.append((last.x + last.width // 2, last.y + last.height))
        x, y = points[0]
        drop = max(py for _, py in points) + DIP
        ex, ey = points[-1]
        return f"M{x} {y}C{x} {drop} {ex} {drop} {ex} {ey}"
    x, y = first.x + first.width, first.y + first.height // 2
    path = [f"M{x} {y}"]
    for name in chain[1:]:
        node = nodes[name]
        to_y = node.y + node.height // 2
        half = (node.x - x) // 2
        path.append(f"C{x + half} {y} {node.x - half} {to_y} {node.x} {to_y}")
        x, y = node.x, to_y
        if name != chain[-1]:
            x = node.x + node.width
            path.append(f"H{x}")
    return "".join(path)
