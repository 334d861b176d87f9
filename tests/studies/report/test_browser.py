"""The page in a real browser, where there is one: no message, no fetch, every table and plot there."""

import json
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from dualprop.studies.report.document import document
from dualprop.studies.report.page import page
from tests.studies.report.records import keep_pictures, record, table_file

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium"),
]

SEEN = """<script>
addEventListener("load", () => {
  const box = e => e.getBoundingClientRect(), inside = e => box(e).width > 50 && box(e).height > 20;
  const count = name => [...document.querySelectorAll(name)].filter(inside).length;
  document.body.textContent = JSON.stringify({
    tables: count("main > section > .scroll > table"), plots: count("svg"),
    wide: document.documentElement.scrollWidth <= innerWidth, width: innerWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("svg text")).fill,
    fetched: performance.getEntriesByType("resource").map(e => e.name)});
});
</script>"""
"""What is asked of the page, in a copy that may run it."""


BROWSERS_OWN = ("google.com", "googleapis.com", "gvt1.com")
"""Hosts that the browser asks for updates of itself, whatever it shows."""


def browse(path, folder, *options):
    """What the browser makes of a file: its document, its messages, and the addresses that it asked for."""
    log = folder / "net.json"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--dump-dom",
        *options,
        f"file://{path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    text = log.read_text(encoding="utf-8").rstrip().rstrip(",")
    events = json.loads(text if text.endswith("}") else text + "]}")["events"]
    asked = {str(event.get("params", {}).get("url", "")) for event in events}
    return done.stdout, messages, {url for url in asked if url}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    for rule in ("bp", "dp"):
        for seed in range(3):
            keep_pictures(record(folder / "runs", f"{rule}-{seed}", rule, seed, 0.9))
    return page(document([folder / "runs"], [str(table_file(folder)), "mnist-mlp"]))


def test_it_says_nothing_and_fetches_nothing(text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    dom, messages, asked = browse(path, tmp_path)
    assert messages == []
    hosts = {urlsplit(url).hostname or "" for url in asked}
    assert {host for host in hosts if not host.endswith(BROWSERS_OWN)} <= {""}
    for tag in ("table", "svg", "figure", "details", "section"):
        assert dom.count(f"<{tag}") == text.count(f"<{tag}")


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize(("scheme", "ground", "ink"), [(1, 255, 26), (0, 20, 230)])
def test_every_table_and_plot_is_there_in_both_looks_and_widths(text, tmp_path, width, scheme, ground, ink):
    path = tmp_path / "asked.html"
    asking = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    path.write_text(asking.replace("</body>", f"{SEEN}</body>"), encoding="utf-8")
    options = (f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},900")
    dom, messages, _ = browse(path, tmp_path, *options)
    assert messages == []
    seen = json.loads(re.search(r"<body>(.*)</body>", dom, re.DOTALL)[1])
    assert seen["tables"] == text.count("<section")
    assert seen["plots"] == text.count("<svg")
    assert seen["wide"]
    assert seen["fetched"] == []
    assert re.findall(r"\d+", seen["ground"])[0] == str(ground)
    assert re.findall(r"\d+", seen["ink"])[0] == str(ink)
