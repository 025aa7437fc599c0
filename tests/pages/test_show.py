"""Values on a page: conditions as trees, terminal output, characters that hide, times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pgsig.api.reply import Raw, reply
from pgsig.pages import tree
from pgsig.pages.ansi import to_html
from pgsig.pages.session import local
from pgsig.pages.show import ago, span, words_for
from pgsig.pages.state import face
from pgsig.pages.visible import plain, visible


def test_a_condition_as_a_tree_and_in_a_sentence() -> None:
    condition = {
        "any": [
            {"signal": "config.changed"}, {"every": "24h"},
            {"seq": [{"signal": "a", "count": 3}, {"signal": "b", "where": "$.x > 1"}], "within": "10m", "label": "odd"},
            {"absent": "heartbeat", "for": "5m"}, {"something": "new"},
        ]
    }  # fmt: skip
    node = tree.of_condition(condition)
    assert [child.form for child in node.children] == ["signal", "clock", "seq", "absent", "unknown"]
    assert node.children[2].label == "odd"
    assert tree.sentence(condition) == (
        'config.changed or every 24 hours or ((a × 3, then b where $.x > 1) within 10m) or no heartbeat for 5m or {"something": "new"}'
    )


@pytest.mark.parametrize("condition", [None, 5, "x", [], {}, {"all": 3}, {"not": None}, {"all": [[]]}])
def test_what_is_no_condition_is_still_shown(condition: object) -> None:
    assert tree.of_condition(condition) is not None
    assert isinstance(tree.sentence(condition), str)
    assert isinstance(list(tree.waits(condition)), list)


def test_a_combination_of_times_is_one_trigger() -> None:
    either = {"times": "any", "of": [{"cron": "0 9 * * mon"}, {"every": "7h"}], "tz": "Europe/Berlin"}
    found = list(tree.waits({"all": [either, {"signal": "ready"}]}))
    assert [(wait.text, wait.clock) for wait in found] == [
        ("every Monday at 09:00 Europe/Berlin or every 7 hours", True),
        ("ready", False),
    ]


def test_a_condition_too_deep_ends() -> None:
    condition: object = {"signal": "a"}
    for _ in range(500):
        condition = {"not": condition}
    tree.of_condition(condition)
    assert list(tree.waits(condition)) == []


def test_an_explanation() -> None:
    leaf = {"text": "a", "met": False, "have": 1, "need": 3, "evidence": [7]}
    node = tree.of_explanation({"text": "all of", "met": False, "have": 0, "need": 1, "children": [leaf]})
    assert node is not None
    assert (node.met, node.partly, node.children[0].partly, node.children[0].count) == (False, False, True, "1/3")
    assert tree.of_explanation(None) is None


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("\x1b[31mred\x1b[0m plain", '<span class="ansi-fg-1">red</span> plain'),
        ("\x1b[1;92mb\x1b[22mg", '<span class="ansi-bold ansi-fg-10">b</span><span class="ansi-fg-10">g</span>'),
        ("\x1b[38;5;4ma\x1b[38;2;1;2;3mb", '<span class="ansi-fg-4">a</span>b'),
        ("a\x1b[2Jb\x1b]0;title\x07c\x1b]8;;http://evil\x1b\\d", "abcd"),
        ("\x1b[31m<b>\x1b[999999999999m", '<span class="ansi-fg-1">&lt;b&gt;</span>'),
        ("10%\r20%\nnext", "20%\nnext"),
        ("a\r\nb", "a\nb"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ('\x1b[31" onload="x', "nload=&#34;x"),
    ],
)
def test_terminal_output_is_coloured_and_inert(text: str, html: str) -> None:
    assert to_html(text) == html


def test_hidden_characters_are_named() -> None:
    assert plain("a\u202eb\u200bc\x07") == "a‹U+202E›b‹U+200B›c‹U+0007›"
    assert plain("Grüße, 世界 👍\n\t") == "Grüße, 世界 👍\n\t"
    assert plain("x" * 10, 5) == "xxxx…"
    assert 'title="right-to-left override"' in visible("\u202e<")
    assert "&lt;" in visible("\u202e<")


def test_times_name_their_zone() -> None:
    at = datetime(2026, 11, 23, 5, 0, 0, 123000, tzinfo=timezone(timedelta(hours=1)))
    html = ago(at, datetime(2026, 11, 23, 4, 3, tzinfo=UTC))
    assert (
        html == '<time datetime="2026-11-23T04:00:00.123000+00:00" title="2026-11-23 04:00:00.123 UTC">2 min ago</time>'
    )
    given = (0.2, 5, 65, 7300, 200000, -70)
    assert [words_for(timedelta(seconds=s)) for s in given] == [
        "now",
        "5 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
        "in 1 min",
    ]
    assert [span(at, at + timedelta(seconds=s)) for s in (0.012, 3.26, 75, 7300)] == [
        "12 ms",
        "3.3 s",
        "1 min 15 s",
        "2 h 1 min",
    ]


def test_many_instances_have_one_face() -> None:
    def named(*states: str) -> list[dict[str, str]]:
        return [{"observed": state} for state in states]

    assert face([]).state == "never_run"
    assert face(named("running")).text == "running"
    several = face(named("running", "failed", "running"))
    assert (several.state, several.text) == ("failed", "1 failed, 2 running")


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("/runs?state=failed", "/runs?state=failed"), ("//evil", "/"), ("/\\evil", "/"), ("\\\\evil", "/"), ("https://evil/", "/"),
        ("javascript:alert(1)", "/"), ("", "/"), ("runs", "/"), ("/\t/evil", "/"), ("/a\nb", "/"),
    ],
)  # fmt: skip
def test_after_signing_in_one_stays_here(target: str, goes: str) -> None:
    assert local(target) == goes


def test_raw_json_is_copied_where_it_belongs() -> None:
    value = Raw('{"n": 1.100000000000000000001, "s": "\\u00e9"}')
    assert reply({"a": value, "b": [value, "text"]}).get_data(as_text=True) == (
        '{"a": {"n": 1.100000000000000000001, "s": "\\u00e9"}, "b": [{"n": 1.100000000000000000001, "s": "\\u00e9"}, "text"]}\n'
    )
