"""Charts and tables in a real browser: drawn, silent, offline, sorted by a click."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait as Wait

from r2d2_kapture.io.colmap.pair_counts import PairCounts
from r2d2_kapture.stages.report.benchmarks import homography_sections
from r2d2_kapture.stages.report.match_matrix import matches_section
from r2d2_kapture.stages.report.page import block_scripts, render
from r2d2_kapture.stages.report.training import training_sections
from tests.browsers import as_address, browser, requests_of
from tests.scenes.report import HOSTILE
from tests.stages.report.test_benchmarks import logged, save_homographies

NAMES = tuple(f"{number} {HOSTILE}" for number in range(3))
ROWS = "return [...arguments[0].tBodies[0].rows].map((row) => row.cells[2].textContent)"
HOVER = ".hoverlayer text"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    root = tmp_path_factory.mktemp("charts")
    save_homographies(root, "one", 0.25)
    save_homographies(root, "two <b>", 0.125)
    counts = PairCounts(
        names=NAMES,
        pairs=np.array([[0, 1], [1, 2]]),
        matches=np.array([1234, 7]),
        inliers=np.array([99, 0]),
    )
    sections = [
        matches_section(counts),
        *homography_sections(root),
        *training_sections([logged(root / "run", [3.0, 2.0, 1.0])]),
    ]
    text = render(HOSTILE, sections, [get_plotlyjs(), *block_scripts()])
    (root / "page.html").write_text(text, encoding="utf-8")
    with browser() as opened:
        opened.get(as_address(root / "page.html"))
        yield opened


def test_every_chart_is_drawn_without_a_word(page: Chrome) -> None:
    charts = page.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(charts) == 1 + 3 + 3
    assert all(one.find_elements(By.CSS_SELECTOR, ".main-svg") for one in charts)
    assert page.get_log("browser") == []
    assert requests_of(page) == [page.current_url]
    assert not page.find_elements(By.CSS_SELECTOR, "img[src=x]")


def test_a_cell_of_the_matrix_names_its_images(page: Chrome) -> None:
    matrix = page.find_element(By.CSS_SELECTOR, ".chart")
    plot = matrix.find_element(By.CSS_SELECTOR, ".nsewdrag")
    third = plot.size["width"] // 3
    ActionChains(page).move_to_element_with_offset(plot, 0, -third).perform()
    Wait(page, 20).until(lambda one: one.find_elements(By.CSS_SELECTOR, HOVER))
    text = "".join(
        one.get_attribute("textContent") or ""
        for one in page.find_elements(By.CSS_SELECTOR, HOVER)
    )
    assert NAMES[0] in text and NAMES[1] in text and "99 verified inliers" in text


def test_a_click_on_a_title_sorts_and_another_turns(page: Chrome) -> None:
    table = page.find_element(By.CSS_SELECTOR, "#hpatches-sequences table")
    assert page.execute_script(ROWS, table) == ["1.000", "0.250"]
    title = table.find_elements(By.CSS_SELECTOR, "th button")[2]
    title.click()
    assert page.execute_script(ROWS, table) == ["0.250", "1.000"]
    title.click()
    assert page.execute_script(ROWS, table) == ["1.000", "0.250"]
