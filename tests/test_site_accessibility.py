"""Every page, checked by axe-core in Chromium: light and dark, as wide as a screen and as a phone.

axe-core comes from npm, into a temporary folder; AXE_CORE may name an axe.min.js that is there already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_site import browser, js, site, wait  # fixtures too

from experiments.site import build

__all__ = ["browser", "site"]
AXE_VERSION = "4.10.3"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
SCREEN = {"width": 1300, "height": 1000, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script axe.min.js."""
    if given := os.environ.get("AXE_CORE"):
        return Path(given).read_text()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, from which axe-core comes")
    folder = tmp_path_factory.mktemp("npm")
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=20000"]
    command = [npm, "install", "--prefix", str(folder), *options, f"axe-core@{AXE_VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot install axe-core: no answer in a minute")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if done.returncode or not script.exists():
        pytest.skip(f"npm cannot install axe-core: {' '.join(done.stderr.split())[:200]}")
    return script.read_text()


@pytest.fixture(params=["light", "dark"])
def scheme(browser: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    features = [{"name": "prefers-color-scheme", "value": request.param}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    yield request.param
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(params=[SCREEN, PHONE], ids=["screen", "phone"])
def width(browser: Any, request: pytest.FixtureRequest) -> Iterator[int]:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", request.param)
    yield request.param["width"]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def violations(browser: Any, axe: str) -> list[str]:
    """What axe-core finds on the page as it stands, an element per line."""
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert len(found["passes"]) > 10  # it has looked
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.usefixtures("scheme", "width")
def test_no_page_has_a_violation(browser: Any, site: SimpleNamespace, axe: str, tmp_path: Path):
    def check(path: Path, ready: str, address: str = "") -> None:
        browser.get("about:blank")
        browser.get(path.as_uri() + address)
        wait(browser, ready)
        js(browser, "document.querySelectorAll('details').forEach(e => { e.open = true; })")
        assert violations(browser, axe) == []

    pages, run = site.path / "pages", site.folders[0].name
    both = "&".join(f"compare={folder.name}" for folder in site.folders[:2])
    check(site.path / "index.html", "document.getElementById('plot').data")
    check(site.path / "index.html", "!document.getElementById('comparison').hidden", f"#{both}")
    check(pages / f"{run}.html", "document.querySelectorAll('#learning .main-svg').length > 0")
    check(pages / "reports" / "trial.html", "document.querySelector('th button')")
    check(pages / "reference" / "shipped.html", "document.querySelector('.report')")
    check(build.write(tmp_path), "document.querySelector('main')")
