"""The pictures of README and of the tutorial, from the rendered scene of the demo.

make demo && .venv/bin/python docs/site/picture.py demo
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

import r2d2_kapture as rk

HEIGHT = 520
PICTURES = Path(__file__).parents[1] / "images"
BROWSER = ("headless=new", "no-sandbox", "hide-scrollbars", "window-size=1280,900")
SOFTWARE_WEBGL = ("use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader")
LEFT = 215
"""Pixels that the contents of the report take."""


def main(demo: Path) -> None:
    """Draw from the output of the demo."""
    save(matches_and_map(demo), "demo.jpg")
    save(view_of_report(demo / "work" / "report.html"), "report.jpg")


def save(picture: Image.Image, name: str) -> None:
    """Write a picture of the documents."""
    picture.convert("RGB").save(PICTURES / name, quality=80, optimize=True)


def matches_and_map(demo: Path) -> Image.Image:
    """Two images with their matches, next to the map."""
    images = demo / "mapping" / "sensors" / "records_data" / "mapping"
    path1, path2 = images / "0000.jpg", images / "0002.jpg"
    extractor = rk.load_extractor("fast_r2d2_v6", top_k=1000)
    a, b = extractor(path1), extractor(path2)
    verified = rk.verify(a, b, rk.match(a, b))
    drawn = io.BytesIO()
    rk.plot_matches(path1, path2, a, b, verified).savefig(drawn, format="png")
    parts = [Image.open(drawn), Image.open(demo / "work" / "map" / "map.png")]
    scaled = [p.resize((p.width * HEIGHT // p.height, HEIGHT)) for p in parts]
    picture = Image.new("RGB", (sum(p.width for p in scaled), HEIGHT), "white")
    left = 0
    for part in scaled:
        picture.paste(part.convert("RGB"), (left, 0))
        left += part.width
    return picture


def view_of_report(page: Path) -> Image.Image:
    """The 3D view of the report with an image chosen, as a browser shows it."""
    options = webdriver.ChromeOptions()
    for flag in BROWSER + SOFTWARE_WEBGL:
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options)
    try:
        browser.get(page.resolve().as_uri())
        time.sleep(6)
        Select(browser.find_elements(By.TAG_NAME, "select")[-1]).select_by_index(4)
        section = browser.find_element(By.ID, "view")
        browser.execute_script("arguments[0].scrollIntoView()", section)
        time.sleep(2)
        shown = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
    finally:
        browser.quit()
    return shown.crop((LEFT, 55, shown.width, shown.height))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
