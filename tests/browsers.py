"""A real browser without a window, for tests of pages; skips where there is none."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
FLAGS = (
    "--headless=new",
    "--hide-scrollbars",
    # WebGL without a graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
WINDOW = (1400, 900)


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser that logs what pages say and ask the network for."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which(DRIVER)
    if found is None or driver is None:
        pytest.skip(f"no browser to test in: needs {BROWSERS[0]} and {DRIVER}")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in (*FLAGS, "--window-size={},{}".format(*WINDOW)):
        options.add_argument(flag)
    if os.geteuid() == 0:  # Chromium's sandbox refuses root
        options.add_argument("--no-sandbox")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def requests_of(page: webdriver.Chrome) -> list[str]:
    """Addresses that were asked for since the last call, but the page's own data."""
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked if not url.startswith(("data:", "blob:"))]


def screenshot(element: WebElement | webdriver.Chrome) -> npt.NDArray[np.int64]:
    """(H, W, 3) pixels as shown."""
    whole = isinstance(element, webdriver.Chrome)
    data = element.get_screenshot_as_png() if whole else element.screenshot_as_png
    return np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int64)


def as_address(path: Path) -> str:
    """The address of a local file."""
    return path.resolve().as_uri()
