"""The page in a real browser: silent, offline, and alive to the mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait as Wait

from r2d2_kapture.stages.report.stage import report_subject
from r2d2_kapture.stages.report.subject import map_subject
from tests.browsers import as_address, browser, requests_of, screenshot
from tests.scenes.images import write_noise
from tests.scenes.report import (
    HOSTILE,
    subject_with_queries,
    write_model,
)

NAMES = [f"{number} {HOSTILE}" for number in range(6)]
QUERY_COLOR = np.array([0x1F, 0x77, 0xB4])
"""Of the first group of queries, as view.js has it."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """The page of a map with queries, just opened."""
    root = tmp_path_factory.mktemp("browser")
    write_model(root / "sparse", NAMES)
    for seed, name in enumerate(NAMES):
        write_noise(root / "images" / name, seed, format="PNG")
    subject = map_subject(root / "sparse", root / "images")
    report_subject(subject_with_queries(root, subject), root / "a é.html", HOSTILE)
    with browser() as opened:
        opened.get(as_address(root / "a é.html"))
        Wait(opened, 60).until(lambda one: one.execute_script(READY))
        opened.execute_script("document.querySelector('#view').scrollIntoView()")
        yield opened


READY = "const view = document.querySelector('.view'); return view && !!view.eye"
SET = """const control = document.querySelector(arguments[0]);
control.value = arguments[1];
for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind));"""
EYE = "return document.querySelector('.view').eye.position.toArray()"
PLACE = "return document.querySelector('.view').cameraOnScreen(arguments[0])"


def scene(page: Chrome) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, ".view-scene")


def at(page: Chrome, x: float, y: float) -> ActionChains:
    """A mouse that was moved to a place of the scene."""
    box = scene(page)
    offset = x - box.size["width"] / 2, y - box.size["height"] / 2
    mouse = ActionChains(page, duration=20)
    return mouse.move_to_element_with_offset(box, *map(int, offset))


def shown(page: Chrome, color: npt.NDArray[np.int64]) -> int:
    """Pixels of the scene of about a colour."""
    near = np.abs(screenshot(scene(page)) - color).max(axis=2) < 40
    return int(near.sum())


def test_a_page_is_silent_and_asks_for_nothing(page: Chrome, tmp_path: Path) -> None:
    (own,) = requests_of(page)
    assert own == page.current_url and own.startswith("file://")
    assert page.get_log("browser") == []
    assert page.title == HOSTILE
    picture = screenshot(page)
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "report.png")
    assert picture.std() > 10
    assert screenshot(scene(page)).std() > 5


def test_dragging_turns_the_map(page: Chrome) -> None:
    before, seen = page.execute_script(EYE), screenshot(scene(page))
    at(page, 300, 300).click_and_hold().move_by_offset(120, 40).release().perform()
    assert np.linalg.norm(np.subtract(page.execute_script(EYE), before)) > 0.1
    assert (screenshot(scene(page)) != seen).any(axis=2).mean() > 0.001


def test_a_click_on_a_camera_shows_its_image(page: Chrome) -> None:
    panel = page.find_element(By.CSS_SELECTOR, "[data-selected]")
    at(page, *page.execute_script(PLACE, NAMES[4])).click().perform()
    Wait(page, 20).until(lambda _: panel.find_elements(By.TAG_NAME, "canvas")[1:])
    assert panel.find_element(By.TAG_NAME, "h3").text == " ".join(NAMES[4].split())
    assert "shared points" in panel.text and "keypoints with a map point" in panel.text
    photograph = panel.find_element(By.TAG_NAME, "canvas")
    assert screenshot(photograph).std() > 20
    assert not panel.find_elements(By.TAG_NAME, "img")


def test_a_condition_and_the_points_can_be_hidden(page: Chrome) -> None:
    group = "queries é: day"
    assert shown(page, QUERY_COLOR) > 0
    box = page.find_element(By.CSS_SELECTOR, f'[data-show="{group}"]')
    box.click()
    assert shown(page, QUERY_COLOR) == 0
    box.click()
    assert shown(page, QUERY_COLOR) > 0
    with_points = screenshot(scene(page))
    page.find_element(By.CSS_SELECTOR, '[data-show="points"]').click()
    assert (screenshot(scene(page)) != with_points).any(axis=2).mean() > 0.001


@pytest.mark.parametrize(
    "control, value", [("[data-size=cameras]", "3"), ("[data-up]", "-x")]
)
def test_camera_size_and_up_axis_change_the_view(
    page: Chrome, control: str, value: str
) -> None:
    before = screenshot(scene(page))
    page.execute_script(SET, control, value)
    assert (screenshot(scene(page)) != before).any(axis=2).mean() > 0.001


def test_a_narrow_window_has_no_sideways_scroll(page: Chrome) -> None:
    size = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = "return document.documentElement.scrollWidth"
    Wait(page, 20).until(lambda one: one.execute_script(width) <= 420)
    assert scene(page).size["width"] > 300


def test_nothing_was_run_or_logged_meanwhile(page: Chrome) -> None:
    assert page.get_log("browser") == [] and requests_of(page) == []
    assert not page.find_elements(By.CSS_SELECTOR, "img[src=x]")
