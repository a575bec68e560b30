"""Headless Chromium over its DevTools pipe: pages opened, measured and looked at. No library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Browser", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--hide-scrollbars", "--remote-debugging-pipe", "about:blank"),
)


def find_chromium() -> str | None:
    """The browser's program, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser; what it says on its console is kept."""

    def __init__(self, program: str) -> None:
        """Start the browser; `close` ends it."""
        self._ids, self.said = itertools.count(1), list[str]()
        self._profile = tempfile.mkdtemp(prefix="latentmas-browser-")
        read_commands, self._write = os.pipe()
        self._read, write_replies = os.pipe()

        def plug() -> None:  # the browser reads from descriptor 3 and writes to 4
            high = os.dup(write_replies), os.dup(read_commands)
            os.dup2(high[1], 3)
            os.dup2(high[0], 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self._process = subprocess.Popen(
            [program, *FLAGS[:-1], f"--user-data-dir={self._profile}", FLAGS[-1]],
            preexec_fn=plug,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_replies)
        self._rest, self._session = b"", None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Network.emulateNetworkConditions", **OFFLINE)

    def close(self) -> None:
        """End the browser and forget what it wrote."""
        self._process.terminate()
        self._process.wait(timeout=600)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, path: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a file at a width; raises what goes wrong in it."""
        self.said.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=path.resolve().as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """Write what the page shows as PNG."""
        reply = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(reply["data"]))
        return path

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        call: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._write, json.dumps(call).encode() + b"\0")
        while (reply := self._message()).get("id") != number:
            pass
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    def _message(self) -> dict[str, Any]:
        """The next message; what the page says is noted."""
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has gone"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, given: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.said.append(str([item.get("value") for item in given["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(given["exceptionDetails"]["text"])
        elif method == "Log.entryAdded":
            self.said.append(f"{given['entry']['level']}: {given['entry']['text']}")
        elif method == "Network.requestWillBeSent" and given["request"]["url"].startswith("http"):
            self.said.append(f"asked for {given['request']['url']}")


OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
