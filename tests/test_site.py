"""The site that `make docs` has built, in a real browser: no message, nothing fetched, nothing too wide."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.studies.report.test_browser import BROWSERS_OWN, CHROMIUM, browse

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
PAGES = [
    "index",
    "start/dual-propagation",
    "tutorials/own-net",
    "api/rules",
    "gathered/results",
    "reference/notation",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium"),
    pytest.mark.skipif(not SITE.exists(), reason="no site: make docs"),
]

SEEN = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const light = getComputedStyle(document.body).backgroundColor;
  document.body.textContent = JSON.stringify({
    fits: page.scrollWidth <= innerWidth, ground: light,
    whole: [...document.images].every(image => image.complete),
    headings: document.querySelectorAll("h1").length});
});
</script>"""
"""What is asked of a page, in a copy beside it."""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_nothing_and_fetches_nothing(name, tmp_path):
    dom, messages, asked = browse(SITE / f"{name}.html", tmp_path)
    assert messages == []
    hosts = {urlsplit(url).hostname or "" for url in asked}
    assert {host for host in hosts if not host.endswith(BROWSERS_OWN)} <= {""}
    assert "<h1>" in dom


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme", "ground"), [(1280, 1, 255), (500, 0, 19)])
def test_a_page_fits_in_both_widths_and_looks(name, width, scheme, ground, tmp_path):
    page = SITE / f"{name}.html"
    copy = page.with_name(f"{page.stem}-asked.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{SEEN}</body>"), encoding="utf-8")
    try:
        options = (f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},900")
        dom, _, _ = browse(copy, tmp_path, *options)
    finally:
        copy.unlink()
    seen = json.loads(re.search(r"<body[^>]*>(.*)</body>", dom, re.DOTALL)[1])
    assert seen["fits"]
    assert seen["whole"]
    assert seen["headings"] == 1
    assert int(re.findall(r"\d+", seen["ground"])[0]) == ground
