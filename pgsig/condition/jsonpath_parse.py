"""SQL/JSON paths as a tree: the part of the language that conditions commonly use, in lax mode.

What is beyond it raises `Unsupported`, which names it: nothing is ever read as something else. Whether a path is valid at all is
for Postgres to say, at `pgsig validate --database` and at every apply.
"""

from __future__ import annotations

import re

from pgsig.condition.jsonpath_tree import Access, Const, Here, Last, Node, Root, Signed, Step, Sum, Test, Unsupported
from pgsig.condition.numeric import Number

METHODS = frozenset({"type", "size", "double", "abs", "floor", "ceiling"})
COMPARISONS = {"==": "==", "=": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
DEEPEST = 50

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f]+)|(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)|(?P<word>[^\W\d]\w*)|(?P<text>"(?:[^"\\]|\\.)*")"""
    r'|(?P<variable>\$(?:\w+|"))'
    r"|(?P<sign>/\*|\*\*|&&|\|\||==|=|!=|<>|<=|>=|[<>!()\[\]$@.,*?+\-/%])",
    re.DOTALL,
)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


def parse_path(path: str) -> Node:
    """The tree of a path. Raises Unsupported."""
    return _Reader(path).whole()


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.tokens: list[tuple[str, str]] = []
        self.at = self.depth = 0
        place = 0
        while place < len(path):
            found = _TOKEN.match(path, place)
            if found is None or found[0] == "/*" or found.lastgroup == "variable":
                raise Unsupported(path, f"the part {path[place : place + 20]!r}")
            kind = str(found.lastgroup)
            if kind == "number" and re.match(r"[\w.]", path[found.end() : found.end() + 1]):
                raise Unsupported(path, f"the number {path[place : found.end() + 1]!r}")
            if kind != "space":
                self.tokens.append((kind, found[0]))
            place = found.end()

    def whole(self) -> Node:
        if self.word("strict"):
            raise Unsupported(self.path, "strict mode")
        self.take("lax")
        node = self.either()
        if self.at < len(self.tokens):
            raise Unsupported(self.path, f"the part {self.tokens[self.at][1]!r}")
        return node

    # ── tokens ──

    def next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def word(self, text: str) -> bool:
        return self.next() == ("word", text)

    def take(self, *texts: str) -> str:
        """The next token where it is one of these, else ""."""
        kind, text = self.next()
        if kind in ("sign", "word") and text in texts:
            self.at += 1
            return text
        return ""

    def need(self, text: str) -> None:
        if not self.take(text):
            kind, found = self.next()
            raise Unsupported(self.path, f"{found!r} where {text!r} is needed" if kind != "end" else f"no {text!r}")

    # ── predicates ──

    def either(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsupported(self.path, f"more than {DEEPEST} levels")
        node = self.both()
        while self.take("||"):
            node = Test("||", self.truth(node), self.truth(self.both()))
        self.depth -= 1
        return node

    def both(self) -> Node:
        node = self.negated()
        while self.take("&&"):
            node = Test("&&", self.truth(node), self.truth(self.negated()))
        return node

    def negated(self) -> Node:
        if self.take("!"):
            if not (self.next() == ("sign", "(") or self.word("exists")):
                raise Unsupported(self.path, "! without parentheses")
            return Test("!", self.truth(self.primary()))
        return self.compared()

    def compared(self) -> Node:
        left = self.added()
        sign = self.take(*COMPARISONS)
        if sign:
            return Test(COMPARISONS[sign], self.value(left), self.value(self.added()))
        if self.take("starts"):
            self.need("with")
            return Test("starts", self.value(left), Const(self.text()))
        if self.take("like_regex"):
            pattern = self.text()
            return Test("like", self.value(left), Const(pattern), self.text() if self.take("flag") else "")
        return left

    def truth(self, node: Node) -> Node:
        if not isinstance(node, Test):
            raise Unsupported(self.path, "a value where a predicate is needed")
        return node

    def value(self, node: Node) -> Node:
        if isinstance(node, Test):
            raise Unsupported(self.path, "a predicate where a value is needed")
        return node

    def text(self) -> str:
        kind, found = self.next()
        if kind != "text":
            raise Unsupported(self.path, f"{found!r} where a text is needed")
        self.at += 1
        return self.unquoted(found)

    # ── values ──

    def added(self) -> Node:
        node = self.multiplied()
        while sign := self.take("+", "-"):
            node = Sum(sign, self.value(node), self.value(self.multiplied()))
        return node

    def multiplied(self) -> Node:
        node = self.signed()
        while sign := self.take("*", "/", "%"):
            node = Sum(sign, self.value(node), self.value(self.signed()))
        return node

    def signed(self) -> Node:
        if sign := self.take("+", "-"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise Unsupported(self.path, f"more than {DEEPEST} levels")
            node = Signed(sign, self.value(self.signed()))
            self.depth -= 1
            return node
        return self.primary()

    def primary(self) -> Node:
        kind, text = self.next()
        self.at += 1
        base: Node
        if kind == "number":
            base = Const(Number.read(text))
        elif kind == "text":
            base = Const(self.unquoted(text))
        elif text in ("true", "false", "null"):
            base = Const({"true": True, "false": False, "null": None}[text])
        elif text == "$":
            base = Root()
        elif text == "@":
            base = Here()
        elif text == "last":
            base = Last()
        elif text == "exists":
            self.need("(")
            base = Test("exists", self.value(self.either()))
            self.need(")")
            return base
        elif text == "(":
            base = self.either()
            self.need(")")
            if isinstance(base, Test) and self.take("is"):
                self.need("unknown")
                return Test("unknown", base)
        else:
            raise Unsupported(self.path, f"the part {text!r}" if kind != "end" else "no end")
        steps = tuple(self.steps())
        return Access(base, steps) if steps else base

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        while sign := self.take(".", "[", "?"):
            if sign == ".":
                steps.append(self.member())
            elif sign == "?":
                self.need("(")
                steps.append(Step("filter", filter=self.truth(self.either())))
                self.need(")")
            elif self.take("*"):
                self.need("]")
                steps.append(Step("items"))
            else:
                steps.append(Step("index", spans=tuple(self.spans())))
        return steps

    def member(self) -> Step:
        kind, text = self.next()
        self.at += 1
        if kind == "text":
            return Step("key", self.unquoted(text))
        if text == "*":
            return Step("keys")
        if kind != "word":
            raise Unsupported(self.path, f"the accessor .{text}")
        if not self.take("("):
            return Step("key", text)
        if text not in METHODS or not self.take(")"):
            raise Unsupported(self.path, f"the method .{text}()")
        return Step("method", text)

    def spans(self) -> list[tuple[Node, Node | None]]:
        spans: list[tuple[Node, Node | None]] = []
        while True:
            begin = self.value(self.added())
            spans.append((begin, self.value(self.added()) if self.take("to") else None))
            if not self.take(","):
                self.need("]")
                return spans

    def unquoted(self, text: str) -> str:
        def written(found: re.Match[str]) -> str:
            code = found[1]
            if code[0] == "u" and len(code) == 5:
                return chr(int(code[1:], 16))
            if code in ("x", "u"):
                raise Unsupported(self.path, f"the escape \\{code}")
            return _ESCAPES.get(code, code)

        try:
            return _ESCAPE.sub(written, text[1:-1]).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise Unsupported(self.path, "half of a surrogate pair") from error
