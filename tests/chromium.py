"""A real browser without a window, driven by the WebDriver protocol: https://www.w3.org/TR/webdriver2."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--hide-scrollbars",
]

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="Chromium and its driver are not installed (Debian: chromium, chromium-driver)",
)


class Browser:
    """A browser; a context manager while it runs.

    Args:
        profile: An empty folder for what it writes.
    """

    def __init__(self, profile):
        self._profile = profile

    def __enter__(self):
        self._driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HOME": str(self._profile)},
        )
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                self._port = int(line.rstrip(".\n").rsplit(" ", 1)[1])
                break
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={self._profile}/profile"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"
        return self

    def __exit__(self, *error):
        try:
            self._ask("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._driver.stdout.close()

    def _ask(self, method, path, body=None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=data,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request
            ) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, path):
        """Opens a file, and gives the seconds until its script is done."""
        start = time.perf_counter()
        self._ask("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})
        assert self.run("return document.documentElement.dataset.ready") == "yes"
        return time.perf_counter() - start

    def run(self, script, *arguments):
        """What a script returns that runs in the page."""
        body = {"script": script, "args": list(arguments)}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def complaints(self):
        """What the browser has said of the page since the last call: errors and warnings."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] != "INFO"]

    def emulate(self, command, **parameters):
        """Tells the browser to behave like another one."""
        body = {"cmd": command, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def show(self, width, height=900, theme="light"):
        """Makes the window so wide, in CSS pixels, and light or dark."""
        self.emulate(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.emulate("Emulation.setEmulatedMedia", features=features)

    def picture(self):
        """What is seen, as PNG."""
        return base64.b64decode(self._ask("GET", f"{self._session}/screenshot"))
