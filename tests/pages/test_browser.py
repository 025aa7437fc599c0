"""The pages in a real browser, served by the real web process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgsig.web import PROCESSES
from tests.support import needs, wait_for
from tests.webapp import define, emit, one, start, write_log

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Connection = psycopg.Connection[Any]
pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def web_process(dsn: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The web process as people start it. Gives its address; it is ended with the block."""
    port = free_port()
    code = "from pgsig.settings import Settings; from pgsig.web import serve; serve(Settings.from_env())"
    environ = {**os.environ, "DATABASE_URL": dsn, "PGSIG_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environ)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, "the web process has ended"
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # refused, or slow to answer on a busy machine
            return False

    try:
        wait_for(ready, 60)
        yield url, process
    finally:
        process.terminate()
        process.wait(15)


@pytest.fixture
def site(database: str) -> Iterator[str]:
    with web_process(database) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = needs("chromium")
    needs("python:playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(site: str, browser: Browser) -> Iterator[Page]:  # site: it outlives the page
    """A page on which nothing may go wrong in silence: errors of scripts and refusals by the policy fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None)
    yield tab
    context.close()
    assert wrong == []


def live(page: Page, url: str) -> None:
    """Open a page and wait until it hears of changes."""
    page.goto(url)
    page.wait_for_selector('#live[data-state="on"]')


def until(page: Page, expression: str) -> None:
    """Wait for JavaScript to be true. Playwright's own way is to evaluate a text in the page, which the policy forbids."""
    wait_for(lambda: page.evaluate(expression), about=expression)


def test_a_committed_signal_shows_by_itself_and_pulses(page: Page, site: str, connection: Connection) -> None:
    define(connection)
    live(page, f"{site}/")
    page.wait_for_selector('.graph [data-key="model.trained"]')
    page.evaluate("""() => { window.pulsed = 0; new MutationObserver((all) => all.forEach((one) => {
        if (one.target.classList?.contains('pulse')) window.pulsed += 1; })).observe(document, {subtree: true, attributes: true}); }""")
    emit(connection, "model.trained", {"auc": 0.9})
    until(page, "window.pulsed > 0")
    live(page, f"{site}/signals")
    emit(connection, "brand.new", {"n": 1})
    page.wait_for_selector("text=brand.new")


def test_a_list_that_is_being_read_does_not_move(page: Page, site: str, connection: Connection) -> None:
    for number in range(60):
        emit(connection, "old.signal", number)
    live(page, f"{site}/signals")
    until(page, "document.querySelector('[data-live]').last !== undefined")  # the first refresh is over
    page.mouse.wheel(0, 900)
    until(page, "scrollY > 500")
    first = page.locator("[data-id]").first.get_attribute("data-id")
    for number in range(3):
        emit(connection, "new.signal", number)
    page.wait_for_selector(".pill >> text=3 new")
    assert page.locator("[data-id]").first.get_attribute("data-id") == first
    page.click(".pill")
    until(page, "scrollY === 0")
    assert page.locator("text=new.signal").count() == 3


def test_pause_stops_and_focus_stays(page: Page, site: str, connection: Connection) -> None:
    define(connection)
    live(page, f"{site}/operators")
    until(page, "document.querySelector('[data-live]').last !== undefined")
    link = page.locator('a[href="/operators/recommender/serve"]')
    link.focus()
    connection.execute("UPDATE pgsig_private.workflow SET version = 2")
    connection.execute("UPDATE pgsig_private.operator SET kind = 'batch' WHERE name = 'serve'")
    until(page, "document.querySelectorAll('td[data-label=Kind]')[2].textContent === 'batch'")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/operators/recommender/serve"
    page.click("#pause")
    page.wait_for_selector('#live[data-state="paused"]')
    page.click("#pause")
    page.wait_for_selector('#live[data-state="on"]')


def test_forms_work_and_say_what_is_wrong(page: Page, site: str, connection: Connection) -> None:
    define(connection)
    page.goto(f"{site}/signals")
    page.click("summary >> text=Emit a signal")
    page.fill("#emit input[name=key]", "model.trained")
    page.fill("#emit input[name=value]", "oops")
    page.click("#emit button")
    assert "a text goes in quotes" in page.inner_text("[role=alert]")
    page.fill("#emit input[name=value]", '{"auc": 0.9}')
    page.click("#emit button")
    page.wait_for_url("**/signals/*")
    assert page.locator("button >> text=Copy").count() == 4
    page.goto(f"{site}/operators/recommender/train")
    page.fill("input[name=reason]", "maintenance")
    page.click("button.order.stop")
    page.wait_for_selector("text=Ordered as signal")
    row = connection.execute("SELECT value FROM pgsig.signals WHERE kind = 'manual'").fetchall()
    assert [item[0]["action"] for item in row] == ["STOP"]


def test_a_log_grows_while_one_looks(page: Page, site: str, connection: Connection) -> None:
    operators = define(connection)
    _, run = start(connection, operators["train"], emit(connection, "data.ready"))
    live(page, f"{site}/runs/{run}")
    write_log(connection, run, "epoch 1\n", "\x1b[32mepoch 2\x1b[0m\n")
    page.wait_for_selector("#log .ansi-fg-2 >> text=epoch 2")
    write_log(connection, run, "epoch 3\n")
    until(page, "document.getElementById('log').textContent === 'epoch 1\\nepoch 2\\nepoch 3\\n'")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_pages_fit_their_screen(browser: Browser, site: str, connection: Connection, width: int, theme: Any) -> None:
    operators = define(connection)
    signal_id = emit(
        connection, "model.trained", {"long": "x" * 300}, subject="a-subject-of-some-length-without-a-space"
    )
    action, run = start(connection, operators["evaluate"], signal_id)
    long = one(
        connection,
        "UPDATE pgsig_private.operator SET name = repeat('a', 63) WHERE id = %s RETURNING id",
        operators["train"],
    )
    _, again = start(connection, long, signal_id, subject="x" * 60)
    connection.execute("ALTER TABLE pgsig_private.run DISABLE TRIGGER USER")
    connection.execute(
        "UPDATE pgsig_private.run SET state = 'retrying', slot = 0, attempt = 6, claimable_at = now() + interval '1 min', reason = %s"
        " WHERE id = %s",
        ["RuntimeError: " + "out of memory, " * 20, again],
    )
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    for path in ("/", "/operators", "/operators/recommender/serve", "/signals", f"/signals/{signal_id}", "/runs", f"/runs/{run}",
                 "/actions", f"/actions/{action}", "/processes", "/storage", "/nothing"):  # fmt: skip
        page.goto(site + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        poor = page.evaluate(CONTRAST)
        assert poor == [], path
        if path == "/operators":
            assert "attempt 6" in page.inner_text("main")
    context.close()


# Texts whose contrast with the ground behind them is below 4.5, by the formula of WCAG.
CONTRAST = """() => {
  const parse = (text) => { const found = text.match(/[\\d.]+/g).map(Number); return found.length < 4 ? [...found, 1] : found; };
  const light = ([r, g, b]) => { const part = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const ground = (element) => { for (let at = element; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor);
    if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
  const poor = [];
  for (const element of document.querySelectorAll('main *, header *, footer')) {
    if (element.closest('svg') || ![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.checkVisibility() || element.disabled) continue;
    const one = light(parse(getComputedStyle(element).color)), other = light(ground(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`);
  }
  return poor; }"""


def test_the_answer_to_a_form_is_the_page_that_it_was_sent_from(page: Page, site: str, connection: Connection) -> None:
    define(connection)
    address = f"{site}/operators/recommender/evaluate"
    live(page, address)
    page.fill('.panel textarea[name="params"]', "nonsense")
    page.click('.panel button[value="START"]')
    page.wait_for_selector("text=not JSON")
    page.wait_for_selector('#live[data-state="on"]')
    assert page.url == address
    emit(connection, "model.trained", {"auc": 0.9})
    page.wait_for_selector("text=last seen")  # what is live is fetched from there
    answer = page.reload()
    assert answer is not None
    assert answer.status == 200


def test_open_streams_do_not_hold_up_the_end(database: str) -> None:
    with web_process(database) as (url, process), urllib.request.urlopen(f"{url}/live", timeout=10) as stream:
        assert stream.readline().startswith(b"retry")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert b"Traceback" not in stream.read()


def test_the_web_process_is_among_the_living_while_it_is(database: str, connection: Connection) -> None:
    def alive() -> int:
        row = connection.execute(
            "SELECT count(*) FROM pgsig_private.process WHERE role = 'web' AND ended_at IS NULL AND lease_until > clock_timestamp()"
        ).fetchone()
        assert row is not None
        return int(row[0])

    with web_process(database) as (_, process):
        wait_for(lambda: alive() == PROCESSES, about="each process to announce itself")
        wait_for(
            lambda: (
                connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsig web presence'"
                ).fetchone()
                == (0,)
            ),
            about="the connection to be closed",
        )
        process.terminate()
        process.wait(15)
    assert alive() == 0
    assert connection.execute("SELECT count(*) FROM pgsig_private.process WHERE role = 'web'").fetchone() == (
        PROCESSES,
    )
