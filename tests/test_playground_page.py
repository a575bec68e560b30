"""The playground in a browser: ask, watch, change a message, compare; for everybody who reads it.

Needs the package playwright and a Chromium: `pip install playwright`, and Debian's `chromium`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from latentmas.runtime import System
from tests.browser import find_chromium
from tests.playground import lively, make_app, served
from tests.served import write_slowly

playwright = pytest.importorskip("playwright.sync_api")

QUESTION = "<img src=x onerror=alert(1)> What is 3 + 4?"
IDLE = "#go:not([disabled])"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def system() -> System:
    return lively()


@pytest.fixture(scope="module")
def app(system: System) -> FastAPI:
    return make_app(system)


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with served(app) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here (Debian's package: chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Open]:
    """Opens the page; at the end, nothing may have gone wrong or been loaded from elsewhere."""
    contexts, said = [], list[str]()

    def open_(width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(600_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda r: None if r.url.startswith((address, "data:,"))
                else said.append(r.url))  # fmt: skip
        page.goto(address)
        return page

    open_.said = said  # type: ignore[attr-defined]
    yield open_
    for context in contexts:
        context.close()
    assert said == []


def ask(page: Any, question: str = QUESTION) -> None:
    page.get_by_label("question", exact=True).first.fill(question)
    page.get_by_role("button", name="Ask").click()
    page.locator(IDLE).wait_for()


def card(page: Any, title: str) -> Any:
    return page.locator("article", has=page.get_by_role("heading", name=title, exact=True))


def answer(page: Any, title: str) -> str:
    return str(card(page, title).locator("pre").evaluate("(element) => element.textContent"))


def test_ask_watch_change_and_compare(visit: Open, system: System):
    page = visit()
    ask(page)
    plain = system.run([{"question": QUESTION}])
    twin = system.text_twin().run([{"question": QUESTION}])
    assert answer(page, "The team") == plain.text
    assert answer(page, "The text twin") == twin.text
    said = card(page, "The text twin").locator("li").all_text_contents()
    assert said[0] == f"Round 1, planner: {twin.text_messages['round1.planner.text'][0]}"
    page.get_by_text("The run is complete.").wait_for()
    turns = page.get_by_role("list", name="Turns of the run").get_by_role("listitem")
    assert turns.count() == 2
    assert page.locator(".turn.done").count() == 6

    page.get_by_text("Change messages").click()
    change = page.get_by_role("group", name="critic → solver (plan)")
    change.get_by_label("What arrives").select_option("words of your own")
    change.get_by_label("In").select_option("round 2")
    change.get_by_label("Words").fill("seven <b>seven</b>")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("heading", name="The team, with the changes").wait_for()
    page.locator(IDLE).wait_for()
    after = answer(page, "The team, with the changes")
    assert after != plain.text == answer(page, "The team")
    assert "the answer differs" in page.locator("#verdict").text_content()
    assert card(page, "The team, with the changes").locator("mark").count() == 1

    numbers = page.get_by_role("region", name="Costs").get_by_role("row")
    assert numbers.nth(0).get_by_role("columnheader").count() == 3
    cells = numbers.nth(3).get_by_role("cell").all_text_contents()
    assert cells[0] == str(len(plain.token_ids[0]))
    page.get_by_label("Show").select_option("Messages critic → solver (plan)")
    tables = page.locator("#readings tbody")
    assert [table.get_by_role("row").count() for table in tables.all()] == [6, 3 + 18]
    assert tables.nth(0).get_by_text("differs from before").count() == 0
    assert tables.nth(1).get_by_text("differs from before").count() > 10


def test_agents_light_up_while_they_run(visit: Open):
    page = visit(reduced_motion="no-preference")
    page.evaluate("""() => {
      window.seen = [];
      // Old values, too: events that arrive together change a class twice before this is called.
      new MutationObserver((list) => list.forEach(({ target, oldValue }) => {
        const part = target.dataset.part;
        if (part) seen.push([part, oldValue], [part, target.getAttribute("class")]);
      })).observe(document.querySelector("svg"),
        { subtree: true, attributeFilter: ["class"], attributeOldValue: true });
    }""")
    ask(page)
    page.get_by_text("The run is complete.").wait_for()
    seen = [(part, style) for part, style in page.evaluate("seen") if style]
    order = [part for part, _ in groupby(part for part, style in seen if style == "now")]
    assert order[:6] == [f"agent {name}" for name in ("planner", "critic", "solver") * 2]
    assert ("edge solver->planner.feedback", "sent") in seen


def test_a_run_can_be_stopped(visit: Open, app: FastAPI, monkeypatch: pytest.MonkeyPatch):
    write_slowly(monkeypatch)
    page = visit()
    page.get_by_label("question", exact=True).first.fill("Go on and on.")
    page.get_by_label("Maximum new tokens").fill("1024")
    page.get_by_role("button", name="Ask").click()
    page.locator("pre:not(:empty)").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(IDLE).wait_for()
    assert page.locator("#status").text_content() == "Stopped."
    assert card(page, "The team").locator(".note").text_content() == "stopped"
    while (outcome := app.state.engine.outcomes.get(timeout=600)) != "stopped":
        assert outcome != "error"


def test_errors_are_shown_in_words(visit: Open):
    page = visit()
    page.get_by_text("Change messages").click()
    page.get_by_label("What arrives").first.select_option("words of your own")
    ask(page)
    text = page.get_by_role("alert").text_content()
    assert "the words for 'planner->critic.plan' are empty; write some" in text
    assert page.get_by_role("button", name="Ask").is_enabled()
    assert card(page, "The team, with the changes").locator(".note").text_content() == "failed"
    assert page.get_by_role("columnheader", name="team", exact=True).count() == 1
    assert page.get_by_role("columnheader", name="changed").count() == 0
    page.get_by_label("What arrives").first.select_option("nothing: all zeros")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("All answers are there.").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_a_server_with_a_key_asks_for_it(chromium: Any, system: System):
    app = make_app(system)

    @app.middleware("http")
    async def guard(request: Request, go_on: Any) -> Any:
        sent = request.headers.get("authorization")
        if request.url.path != "/" and sent != "Bearer open sesame":
            return JSONResponse({"error": {"message": "wrong key"}}, status_code=401)
        return await go_on(request)

    with served(app) as address:
        page = chromium.new_page()
        page.goto(address)
        ask(page)
        assert "asks for its API key" in page.get_by_role("alert").text_content()
        page.get_by_label("API key").fill("open sesame")
        ask(page)
        assert page.get_by_text("All answers are there.").count() == 1
        page.close()


# ── everybody ─────────────────────────────────────────────────────────────────────────────────

FAINT = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
  };
  const found = [];
  const without = ":not(svg *,script,:disabled,[type=range],[type=checkbox])";
  for (const element of document.querySelectorAll(`body *${without}`)) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!(own || element.value) || !element.checkVisibility()) continue;
    const [a, b] = [light(paper(element)), light(rgba(getComputedStyle(element).color))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, element.outerHTML.slice(0, 80)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_can_be_read(visit: Open, width: int, scheme: str):
    page = visit(width, color_scheme=scheme)
    ask(page)
    page.get_by_text("Change messages").click()
    page.get_by_label("What arrives").first.select_option("nothing: all zeros")
    ask(page)
    page.locator("details").evaluate_all("(all) => all.forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    frame = page.get_by_role("region", name="Drawing of the team")
    page.get_by_text("The run is complete.").wait_for()
    box = page.locator("[data-part='agent solver'] rect.box").bounding_box()
    seen = frame.bounding_box()
    assert seen["x"] <= box["x"] and box["x"] + box["width"] <= seen["x"] + seen["width"]
    ratios = page.evaluate(FAINT)
    assert len(ratios) > 60
    assert [found for found in ratios if found[0] < 4.5] == []


UNNAMED = """() => [...document.querySelectorAll("input,select,textarea,button,[tabindex],a")]
  .filter((e) => e.checkVisibility())
  .map((e) => [e.outerHTML.slice(0, 80), [...(e.labels ?? [])].map((l) => l.innerText).join(" ")
    || e.ariaLabel || e.getAttribute("aria-labelledby") || e.innerText])
  .filter(([, name]) => !name.trim()).map(([html]) => html)"""
FOCUSED = """() => {
  const e = document.activeElement;
  const style = getComputedStyle(e);
  return [e.id || e.textContent.trim().slice(0, 30), style.outlineStyle, style.outlineWidth];
}"""


def test_the_page_works_by_keyboard_and_names_its_parts(visit: Open):
    page = visit()
    page.keyboard.press("Tab")
    order = []
    for _ in range(9):
        order.append(page.evaluate(FOCUSED))
        page.keyboard.press("Tab")
    names = [name for name, *_ in order]
    assert names == [
        *("Skip to the answers", "input-1", "rounds", "latent", "tokens", "twin"),
        *("Change messages", "go", "Drawing of the team"),
    ] or names[:8] == [
        *("Skip to the answers", "input-1", "rounds", "latent", "tokens", "twin"),
        *("Change messages", "go"),
    ]  # fmt: skip
    assert {(style, wide) for _, style, wide in order} == {("solid", "3px")}
    page.get_by_label("Rounds").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#rounds-value").text_content() == "3 rounds"
    page.get_by_label("question", exact=True).first.fill("?")
    page.keyboard.press("Control+Enter")
    page.get_by_text("All answers are there.").wait_for()
    assert page.locator("#spoken").text_content().startswith("The text twin answered: ")
    assert page.evaluate(UNNAMED) == []
    ids = page.locator("[id]").evaluate_all("(all) => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.locator("h1,h2,h3").evaluate_all("(all) => all.map((e) => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.locator("svg").first.get_attribute("role") == "img"


def test_nothing_moves_for_those_who_ask_for_that(visit: Open):
    for motion, name in (("reduce", "none"), ("no-preference", "walk")):
        page = visit(reduced_motion=motion)
        page.locator("[data-part='agent planner']").evaluate("(g) => g.classList.add('now')")
        box = page.locator("[data-part='agent planner'] rect.box")
        assert box.evaluate("(e) => getComputedStyle(e).animationName") == name
        assert box.evaluate("(e) => getComputedStyle(e).strokeDasharray") == "12px, 5px"
