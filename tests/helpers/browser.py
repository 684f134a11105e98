"""A page in a headless Chromium, by its DevTools protocol over a pipe: a page that fills itself can be waited for."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Every text that is on the page, in shadow roots as well.
TEXTS = """(() => {
  const skipped = new Set(["STYLE", "SCRIPT", "TEMPLATE", "DOM-MODULE"]);
  const texts = node => node.nodeType === 3 ? [node.data.trim()] : skipped.has(node.nodeName) ? []
    : [...(node.shadowRoot ? texts(node.shadowRoot) : []), ...[...node.childNodes].flatMap(texts)];
  return texts(document.body).filter(text => text);
})()"""


class Page:
    """One tab."""

    def __init__(self, reads: int, writes: int):
        self._reads, self._writes, self._buffer = reads, writes, b""
        self._numbers = itertools.count(1)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                if not (more := os.read(self._reads, 1 << 20)):
                    raise EOFError("Chromium has ended")
                self._buffer += more
            answer, _, self._buffer = self._buffer.partition(b"\0")
            said = json.loads(answer)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]

    def open(self, url: str) -> None:
        """Goes there; does not wait."""
        self._call("Page.navigate", url=url)

    def texts(self) -> list[str]:
        """Returns the text of the page."""
        return self._call("Runtime.evaluate", expression=TEXTS, returnByValue=True)["result"].get("value") or []

    def wait(self, ready: Callable[[list[str]], bool], seconds: float = 1200) -> list[str]:
        """The texts, once they are as ``ready`` wants them; else those at the end."""
        end = time.monotonic() + seconds
        while not ready(found := self.texts()) and time.monotonic() < end:
            time.sleep(0.3)
        return found

    def screenshot(self, path: Path) -> None:
        """As it looks now."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))


@contextmanager
def page(profile: Path, width: int, height: int) -> Iterator[Page]:
    """A Chromium of its own, and nothing left of it after."""
    assert CHROMIUM is not None
    (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
    ]  # fmt: skip
    places = f'exec "$@" 3<&{its_in} 4>&{its_out}'  # Chromium reads 3 and writes 4
    started = subprocess.Popen(
        ["bash", "-c", places, "bash", *command], pass_fds=(its_in, its_out), stderr=subprocess.DEVNULL
    )
    os.close(its_in), os.close(its_out)
    try:
        yield Page(our_in, our_out)
    finally:
        os.close(our_in), os.close(our_out)
        started.terminate()
        started.wait()
