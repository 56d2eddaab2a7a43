from __future__ import annotations

import base64
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from htfcli.files.own.records import load_records


@pytest.fixture
def run(htf):
    assert htf("generate", "tensor", "--dim", 4, "--rank", 2, "-o", "data.safetensors").code == 0
    done = htf("fit", "data.safetensors", "--width", 4, "--iterations", 300, "--record-every", 10, "-o", "fit")
    assert done.code == 0
    return "fit"


@pytest.fixture
def sweep(htf, tmp_path):
    plan = {
        "generate": {"order": 3, "dim": 4, "rank": 1},
        "base": {"width": 2, "iterations": 20, "record_every": 10, "optimizer": "sgd"},
        "grid": {"lr": [0.01, 1e9]},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert htf("sweep", "plan.yaml", "-o", "sweep", "--retries", 0).code == 1
    return "sweep"


def test_a_page_of_a_run(htf, run, tmp_path):
    done = htf("report", run, "-o", "report.html")
    assert (done.code, done.out, done.err) == (0, "", "wrote report.html\n")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "31 records, the last one at iteration 300" in page
    assert re.search(r"<td>record_every</td><td>10</td>", page)
    assert re.search(r"<td>reconstruction_error</td><td>[\d.]+</td>", page)
    assert htf("report", run, "-o", "report.html").error.startswith("report.html exists.")


def test_nothing_is_loaded_from_elsewhere(htf, run, tmp_path):
    htf("report", run, "-o", "report.html")
    page = re.sub(r"<script>.*?</script>", "", (tmp_path / "report.html").read_text(), count=1, flags=re.S)
    assert not re.search(r"""(src|href)\s*=\s*["']?http""", page)


def test_a_page_of_a_sweep(htf, sweep, tmp_path):
    assert htf("report", sweep, "-o", "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert "htf fit: 2 runs, 1 finished, 1 failed" in page
    assert re.search(r'<tr class="failed">.*<td>failed</td>', page)
    assert re.search(r'<td>1</td><td class="prose">training diverged by iteration \d+ .*</td><td>lr=1', page)
    assert "lr=0.01_seed=0" in page
    assert "mean and standard error" in page


def test_a_page_of_records_on_stdin(htf, run, tmp_path, monkeypatch):
    with open(tmp_path / run / "records.jsonl", encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        done = htf("report", "-", "-o", "-")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("<!doctype html>")
    assert "31 records" in done.out


def test_what_cannot_be_reported(htf, tmp_path):
    (tmp_path / "empty").mkdir()
    assert htf("report", "empty", "-o", "x.html").error.startswith("empty has no records.")
    assert not (tmp_path / "x.html").exists()


def browser_and_driver():
    """Chromium or Chrome, of the system or of Playwright, and chromedriver, wherever they are; None for what is not."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    found = [*filter(None, map(shutil.which, names)), *sorted(map(str, cache.glob("chromium-*/chrome-linux*/chrome")))]
    drivers = map(
        shutil.which, ("chromedriver", "/usr/lib/chromium/chromedriver", "/usr/lib/chromium-browser/chromedriver")
    )
    return next(iter(found), None), next(filter(None, drivers), None)


BROWSER, DRIVER = browser_and_driver()


@pytest.fixture
def browser():
    """A headless browser that keeps what its console says."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1200,900", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def complaints(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def printed(browser):
    """The PDF, once nothing in print sticks out of a page of 19 cm, and all text is dark on white and of 5 points or more."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_script("window.dispatchEvent(new Event('resize'))")
    wide = """return [...document.querySelectorAll('table, .main-svg, pre')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className || e.tagName)"""
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(wide) == [])
    faint = """const light = c => c.match(/[0-9.]+/g).slice(0, 3).every(v => v > 150);
        return [...document.querySelectorAll('h1, h2, h3, p, td, th, pre, .xtitle, .ytitle, .gtitle')]
        .map(e => [e, getComputedStyle(e)]).filter(([e, s]) => e.textContent.trim() &&
            (parseFloat(s.fontSize) < 7 || light(e.ownerSVGElement ? s.fill : s.color))).map(([e]) => e.textContent)"""
    assert browser.execute_script(faint) == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    return base64.b64decode(browser.print_page())


@pytest.mark.slow
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium or Chrome, and chromedriver")
def test_in_a_browser(htf, run, tmp_path, browser):
    """It opens without errors, its slider moves the tree, and it prints."""
    htf("report", run, "-o", "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    tree = "document.getElementById('figure-0-0')"

    def nodes():
        return browser.execute_script(f"return [{tree}.data[2].marker.color, {tree}.data[2].text]")

    last = load_records(run).records[-1]
    before, texts = nodes()
    expected = {place["node"]: place.get("effective_rank") for place in last["nodes"]}
    assert before[:4] == pytest.approx([expected[f"{{{mode}}}"] for mode in range(4)])
    assert before[4] == before[5] == pytest.approx(expected["{0,1}"])
    assert texts[0] == f"{{1}}: {before[0]:.1f}"
    grip = browser.find_element(By.CSS_SELECTOR, "#figure-0-0 .slider-grip-rect")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", grip)
    ActionChains(browser).drag_and_drop_by_offset(grip, -600, 0).perform()
    moved, texts = nodes()
    assert moved != before
    step = browser.execute_script(f"return {tree}._fullLayout.sliders[0].active")
    assert step < 20
    record = load_records(run).records[step]
    assert moved[0] == pytest.approx(next(p["effective_rank"] for p in record["nodes"] if p["node"] == "{0}"))
    assert len(browser.find_elements(By.CSS_SELECTOR, ".main-svg")) > 6
    pdf = printed(browser)
    assert pdf.startswith(b"%PDF") and len(pdf) > 40_000
    assert complaints(browser) == []


@pytest.mark.slow
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium or Chrome, and chromedriver")
def test_a_sweep_in_a_browser(htf, sweep, tmp_path, browser):
    htf("report", sweep, "-o", "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    assert "training diverged" in browser.find_element(By.CSS_SELECTOR, "td.prose").text
    assert printed(browser).startswith(b"%PDF")
    assert complaints(browser) == []
