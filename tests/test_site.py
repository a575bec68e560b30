"""The site as a browser shows it: every page, on a desk and on a phone, from this host alone."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

browsers: Any = pytest.importorskip("tests.browser")
ROOT = Path(__file__).parent.parent
CHROMIUM = browsers.find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed"
    ),
]
OPEN = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
# Parts of the text that stick out of the page and cannot be scrolled to within it.
STICKING_OUT = """
[...document.querySelectorAll('.md-content *')].filter(part => {
  if (part.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let up = part.parentElement; up && up !== document.body; up = up.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)) return false;
  return true;
}).map(part => part.tagName + ': ' + part.textContent.slice(0, 40))
"""
SCROLL = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    indexed: ClassVar[set[Path]] = set()
    """The index of the search is asked for here; each page would read all of it again."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """All files as they are; the second time, the index without its entries."""
        path = Path(self.translate_path(self.path))
        if path.name != "search_index.json" or path not in self.indexed:
            self.indexed.add(path)
            super().do_GET()
            return
        content = json.dumps(json.loads(path.read_text()) | {"docs": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Visitor(browsers.Browser):  # type: ignore[misc]
    """A browser that may ask one host."""

    base = ""

    def _note(self, method: str | None, given: dict[str, Any]) -> None:
        asked = given.get("request", {}).get("url", "")
        if method != "Network.requestWillBeSent" or not asked.startswith(self.base):
            super()._note(method, given)

    def go(self, path: str) -> None:
        """Open a page of the site."""
        self.said.clear()
        self.send("Page.navigate", url=self.base + path)
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def resize(self, width: int) -> None:
        """Lay the page out for a width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([*command, str(folder)], cwd=ROOT, env=environment, check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def visitor(site: Path) -> Iterator[Visitor]:
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    visitor = Visitor(CHROMIUM)
    visitor.base = f"http://127.0.0.1:{server.server_port}/"
    visitor.send("Network.emulateNetworkConditions", **OPEN)
    yield visitor
    visitor.close()
    server.shutdown()
    server.server_close()


def test_every_page_fits_and_says_nothing_on_the_console(site: Path, visitor: Visitor):
    pages = sorted(page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    assert len(pages) > 25
    wrong = []
    for page in pages:
        visitor.resize(1280)
        visitor.go("" if page == "." else f"{page}/")
        found: dict[str, Any] = {"scrolls on a desk": max(0, visitor.ask(SCROLL))}
        visitor.resize(390)
        found["scrolls on a phone"] = max(0, visitor.ask(SCROLL))
        found["sticks out"] = visitor.ask(STICKING_OUT)
        found["broken pictures"] = visitor.ask(BROKEN)
        found["console"] = list(visitor.said)
        wrong += [f"{page}: {what}: {value}" for what, value in found.items() if value]
    assert not wrong, "\n".join(wrong)


def test_what_sticks_out_is_seen(visitor: Visitor):
    """Guards the test above."""
    visitor.resize(390)
    visitor.go("tutorial/")
    wide = "const p = document.createElement('p'); p.style.width = '900px'; p.textContent = 'wide';"
    visitor.ask(f"{wide} document.querySelector('.md-content__inner').append(p); 1")
    assert any("wide" in part for part in visitor.ask(STICKING_OUT)) or visitor.ask(SCROLL) > 0
    visitor.ask("console.error('boom'); fetch('http://elsewhere.invalid/').catch(() => 1); 1")
    visitor.ask("1")
    said = " ".join(visitor.said)
    assert "boom" in said and "elsewhere.invalid" in said
