"""Drawings and reports as a browser shows them: quiet, no wider than the window, nothing cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import latentmas as lm
from latentmas.viz import DepthMap
from tests.browser import Browser, find_chromium
from tests.gallery import GALLERY, random_plan
from tests.teams import QUESTIONS, of_template
from tests.test_report import HOSTILE, entries, write_log

WIDTHS = (1280, 390)
# Words that reach out of their box, or meet other words, as this browser sets them.
CUT = """(() => {
  const found = [], words = [...document.querySelectorAll("svg text")];
  const area = (e) => e.getBoundingClientRect();
  const within = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top - 1
    && a.bottom <= b.bottom + 1;
  for (const text of words) {
    const box = text.parentElement.querySelector("rect.box,rect.source");
    const around = box && text.parentElement.tagName === "g" ? box : text.closest("svg");
    if (!within(area(text), area(around))) found.push("cut: " + text.textContent);
  }
  const places = words.map((text) => [area(text), text.textContent]);
  places.sort((a, b) => a[0].left - b[0].left);
  places.forEach(([a, one], i) => {
    for (let j = i + 1; j < places.length && places[j][0].left < a.right - 0.5; j++) {
      const b = places[j][0];
      if (b.top + 2 < a.bottom && a.top + 2 < b.bottom) found.push(one + " on " + places[j][1]);
    }
  });
  return found;
})()"""
OPEN = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
WIDER = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here (Debian's package: chromium)")
    browser = Browser(program)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind of page, with odd texts."""
    folder = tmp_path_factory.mktemp("pages")
    system = of_template("mixture", "llama").compile().load()
    asked = [HOSTILE, "one_word_" * 80, *QUESTIONS]
    result = system.run(asked, record=("report",))
    DepthMap([1, 2], {"trained at 1": [0.3, 0.3]}).save(folder / "depths.json")
    write_log(folder, entries())
    return {
        "run": result.report(folder / "run.html", twin=result),
        "training": lm.training_report(folder, folder / "training.html"),
        "drawing": GALLERY["tree"].draw(folder / "tree.html"),
        "large drawing": random_plan(40, 2).draw(folder / "forty.html"),
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "training", "drawing", "large drawing"])
def test_pages_are_quiet_and_fit(browser: Browser, pages: dict[str, Path], name: str, width: int):
    browser.open(pages[name], width=width)
    assert browser.ask(WIDER) == 0
    browser.ask(OPEN)
    assert browser.ask(WIDER) == 0
    assert browser.said == []
    assert browser.ask("document.querySelectorAll('h1').length") == 1
    if name == "run":
        assert browser.ask("document.body.innerText").count("onerror=alert(1)") >= 1
        assert browser.ask("document.images.length") == 0


@pytest.mark.parametrize("name", [*GALLERY, "random 40"])
def test_no_word_of_a_drawing_is_cut_or_covered(browser: Browser, name: str, tmp_path: Path):
    plan = random_plan(40, 2) if name == "random 40" else GALLERY[name]
    browser.open(plan.draw(tmp_path / "team.svg"), width=1280)
    assert browser.ask("document.querySelectorAll('svg text').length") > len(plan.graph.agents)
    assert browser.ask(CUT) == []
    assert browser.said == []


@pytest.mark.parametrize("name", ["run", "training"])
def test_no_word_of_a_chart_is_cut_or_covered(browser: Browser, pages: dict[str, Path], name: str):
    browser.open(pages[name], width=1280)
    browser.ask(OPEN)
    assert browser.ask(CUT) == []


CONTRAST = """((selectors) => selectors.map((selector) => {
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => rgb(colour).map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const [paper, ink] = selector.map(([where, what]) =>
    light(getComputedStyle(document.querySelector(where))[what]));
  return (Math.max(paper, ink) + 0.05) / (Math.min(paper, ink) + 0.05);
}))"""
PAIRS = [
    [["body", "backgroundColor"], ["body", "color"]],
    [["body", "backgroundColor"], ["figcaption", "color"]],
    [["body", "backgroundColor"], [".mute", "color"]],
    [["body", "backgroundColor"], ["a", "color"]],
    [["svg .paper", "fill"], ["svg .mute", "fill"]],
    [["svg .b0", "fill"], ["svg .name", "fill"]],
    [["svg .b1", "fill"], ["svg .name", "fill"]],
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_stand_out_in_light_and_dark(browser: Browser, pages: dict[str, Path], dark: bool):
    browser.open(pages["run"], width=1280, dark=dark)
    ratios = browser.ask(f"{CONTRAST}({PAIRS!r})")
    assert min(ratios) >= 4.5, ratios
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_the_browser_would_tell(browser: Browser, tmp_path: Path):
    """Guards the tests above: noise, width and cut words are seen."""
    page = tmp_path / "loud.html"
    page.write_text(
        "<script>console.error('loud'); fetch('http://127.0.0.1:9/'); missing()</script>"
        "<div style='width:3000px'>wide</div>"
        "<svg width='50' height='20'><text y='15'>a long text</text><text y='15'>b</text></svg>"
    )
    browser.open(page, width=390)
    assert browser.ask(WIDER) > 0
    assert browser.ask(CUT)
    for part in ("loud", "asked for http://127.0.0.1:9/", "Uncaught"):
        assert any(part in said for said in browser.said), (part, browser.said)
