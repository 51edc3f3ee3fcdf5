"""The page in a real browser, from disk, made from synthetic runs whose numbers are known beforehand.

The tests in the browser need Chromium with its driver (Debian: chromium, chromium-driver) and selenium.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_collect import DATA, FIXED, PROVENANCE, result_row, write_sweep

from experiments import advice, browse, collect, report
from vae import linear_theory

NASTY = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>&amp; \"{{ 7*7 }}\""
SCORES = {"judge": "j", "judge_accuracy": 0.97, "real_ffd": 0.5, "reconstruction_ffd": 0.6, "sample_coverage": 0.9}
FAIRNESS = {0.01: 9.0, 0.1: 3.0, 1: 2.0}  # sample FFD by x_var


def scored(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
    """A change for write_sweep: runs with scores of samples, one that failed and one that collapsed."""
    if settings["x_var.value"] == 1 and settings["seed"] == 2:
        return NASTY
    ffd = FAIRNESS[settings["x_var.value"]] + 0.01 * settings["seed"]
    row |= SCORES | {"sample_accuracy": 0.9, "sample_ffd": ffd, "sample_density": 1.0}
    if settings["x_var.value"] == 0.01 and settings["seed"] == 2:
        row |= {"test_active_units": 0, "test_kl": 0.0, "test_sse": row["test_baseline_class_means"]}
    return row


def draw_pictures(folders: list[Path]) -> None:
    for i, folder in enumerate(folders):
        for name in ("samples.png", "reconstructions.png", "traversals.png"):
            Image.new("RGB", (40, 40), (20 * i, 90, 90)).save(folder / name)


def make_site(tmp_path: Path) -> list[Path]:
    """Nine runs of an experiment with a nasty name of its data, and one of no report."""
    folders = write_sweep(
        tmp_path,
        params={"x_var.value": [1, 0.1, 0.01], "seed": [0, 1, 2]},
        data={**DATA, "name": NASTY},
        study={"title": f"A trial {NASTY}", "question": f"Does it work? {NASTY}"},
        change=scored,
    )
    stray = tmp_path / "runs" / "stray #1 %41-0123456789"
    stray.mkdir()
    row = result_row(stray.name, {"x_var.value": 0.5, "seed": 0}, DATA) | {"dataset_hash": "e" * 64}
    (stray / "result.json").write_text(json.dumps(row))
    (stray / "history.csv").write_text("not,a\nhistory\n")
    draw_pictures([*folders, stray])
    collect.collect("trial", tmp_path)
    browse.write(tmp_path)
    return folders


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("site with a blank")
    return SimpleNamespace(path=path, folders=make_site(path), url=(path / "index.html").as_uri())


# ---------------------------------------------------------------------------------------------- without a browser


def stamps(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_only_what_changed_is_written_again_and_nothing_in_the_runs(tmp_path: Path):
    folders = write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    pages = [f"pages/{folder.name}.html" for folder in folders]
    runs = stamps(tmp_path / "runs")
    browse.write(tmp_path)
    before = stamps(tmp_path)
    assert before.keys() >= {"index.html", "pages/plotly.min.js", *pages}
    browse.write(tmp_path)
    assert stamps(tmp_path) == before
    assert stamps(tmp_path / "runs") == runs

    result = json.loads((folders[0] / "result.json").read_text())
    (folders[0] / "result.json").write_text(json.dumps(result | {"test_sse": 3.21}))
    draw_pictures(folders[1:2])
    shutil.rmtree(folders[2])
    browse.write(tmp_path)
    after = {name: stamp for name, stamp in stamps(tmp_path).items() if not name.startswith("runs")}
    assert {name for name in after if after[name] != before[name]} == {"index.html", *pages[:2]}
    assert pages[2] not in after
    assert pages[3] in after


def test_statuses_settings_and_numbers_are_the_reports(site: SimpleNamespace):
    found, broken = browse.read_reports(site.path)
    assert not broken
    data = browse.table_data(browse.read_entries(found, site.path))
    rows = {row["run"]: row for row in data["runs"]}
    assert len(rows) == 10
    settings, numbers = ([column[0] for column in data[name]] for name in ("settings", "numbers"))
    for run in found[0].runs:
        row = rows[run.name]
        assert (row["status"], row["reason"]) == (run.health, run.health_reason)
        if run.usable:
            assert row["settings"][settings.index("x_var.value")] == run.settings["x_var.value"]
            assert row["numbers"][numbers.index("test_kl")] == pytest.approx(run.value("test_kl"), rel=1e-5)
            assert row["numbers"][numbers.index("train_seconds")] == 60.0  # 600 s of a stack of ten
    assert sorted(row["status"] for row in rows.values()) == ["collapsed", "failed"] + ["ok"] * 8
    assert dict(zip(settings, rows["stray #1 %41-0123456789"]["settings"], strict=True))["dataset"] == "synthetic"


def test_the_closed_form_is_that_of_the_linear_vae(site: SimpleNamespace):
    found, _ = browse.read_reports(site.path)
    entries = browse.read_entries(found, site.path)
    data = browse.table_data(entries)
    (curve,) = data["curves"]  # label in encoder and decoder, k = 10, for the runs whose data are known
    kl, sse = np.array(curve["kl"]), np.array(curve["sse"])
    for t in (0.05, 0.3, 1.0):
        best = linear_theory.optimum(DATA["eigenvalues_within"], t, 10)
        assert np.interp(best.kl, kl[::-1], sse[::-1]) == pytest.approx(best.sse, rel=0.01)
    entry = next(e for e in entries if e.run.settings.get("x_var.value") == 0.1)
    drawn = browse.run_data(entry)["closed_form"][0]["kl"]
    assert drawn == pytest.approx(linear_theory.optimum(DATA["eigenvalues_within"], 0.1, 10).kl_per_dim, rel=1e-5)


def test_a_run_without_result_has_the_settings_of_its_provenance(tmp_path: Path):
    folder = tmp_path / "runs" / "unfinished"
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE | {"identity": {**FIXED, "x_var.value": 0.7}}))
    (tmp_path / "runs" / "empty").mkdir()
    browse.write(tmp_path)
    empty, unfinished = browse.read_entries([], tmp_path)
    assert unfinished.settings["x_var.value"] == 0.7
    assert [empty.status, unfinished.status] == ["missing", "missing"]
    assert "0.7" in (tmp_path / "pages" / "unfinished.html").read_text()


def test_a_report_without_its_runs_shows_what_it_found(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    collect.collect("trial", tmp_path)
    finding = json.loads((tmp_path / "reports" / "trial" / "summary.json").read_text())["finding"]
    shutil.rmtree(tmp_path / "runs")
    text = browse.write(tmp_path).read_text()
    assert finding.partition("±")[0] in text
    assert "Nothing to recommend" not in text


def test_a_broken_report_is_named_and_the_others_are_shown(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]})
    (tmp_path / "reports" / "broken").mkdir()
    (tmp_path / "reports" / "broken" / "sweep.json").write_text("{")
    text = browse.write(tmp_path).read_text()
    assert "broken cannot be shown" in text
    assert "A trial" in text


def test_a_failure_is_one_line_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_sweep(tmp_path, params={"seed": [0]})
    (tmp_path / "pages").write_text("in the way")
    browse.refresh(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("the page was not written (FileExistsError")
    assert err.count("\n") == 1
    assert browse.main(["--output-dir", str(tmp_path)]) == 1
    assert browse.main(["--output-dir", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_the_end_of_a_sweep_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_sweep(tmp_path, params={"seed": [0, 1]})
    report.conclude(json.loads((tmp_path / "reports" / "trial" / "sweep.json").read_text()), tmp_path)
    assert f"page: {tmp_path / 'index.html'}" in capsys.readouterr().err
    assert (tmp_path / "index.html").exists()


def write_many(tmp_path: Path, n: int) -> None:
    """So many runs of one experiment, with 100 latent dimensions, 50 epochs and real settings."""
    rng = np.random.default_rng(0)
    history = "epoch,train_sse,train_kl,train_loss,beta,x_var,lr\n"
    history += "".join(
        f"{e},{30.123456789 / e},{20 - 1.23456789 / e},{9.87654321 / e},1,1,0.001\n" for e in range(1, 51)
    )
    data = {**DATA, "eigenvalues": (4 * 0.97 ** np.arange(784)).tolist(), "image_shape": [1, 28, 28]}
    data["eigenvalues_within"] = data["eigenvalues"]
    base = {x: result_row("", {"x_var.value": x, "z_dim.value": 100}, data) for x in (1, 0.3, 0.1, 0.03, 0.01)}
    rows = []
    for i in range(n):
        x = list(base)[i % 5]
        name = f"mnist_5k-mlp-z100-b1-x{x}-both5-s{i // 5}-{i:010x}"
        row = {**base[x], **SCORES, "run": name, "seed": i // 5, "sample_accuracy": 0.9, "sample_density": 1.0}
        row |= {"test_sse": base[x]["test_sse"] + rng.random(), "test_kl": base[x]["test_kl"] + rng.random()}
        row |= {"sample_ffd": 2 + rng.random(), "test_kl_per_dim": rng.random(100).tolist()}
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(row))
        (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
        (folder / "history.csv").write_text(history)
        (folder / "samples.png").touch()
        rows.append({"run": name, "settings": {"x_var.value": x, "seed": i // 5}, "dataset_hash": "d" * 64})
    write_sweep(tmp_path, params={"seed": [0]})
    path = tmp_path / "reports" / "trial" / "sweep.json"
    manifest = json.loads(path.read_text()) | {"swept": ["x_var.value", "seed"], "runs": rows}
    path.write_text(json.dumps(manifest | {"datasets": {"d" * 64: data}}))


# ---------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1300,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_script_timeout(30)
    yield found
    found.quit()


@pytest.fixture
def index(browser: Any, site: SimpleNamespace) -> Iterator[Any]:
    """The index, freshly opened; whatever a test does to it must leave no error in the console."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(site.url)
    # On a busy machine `get` can return before the page's script has run.
    wait(browser, "document.querySelectorAll('#table tbody tr').length === 10 && document.getElementById('plot').data")
    yield browser
    assert browser.execute_script("return window.hurt") is None
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def js(browser: Any, code: str, *arguments: Any) -> Any:
    return browser.execute_script(f"return {code}", *arguments)


def column(browser: Any, heading: str) -> list[str]:
    """A column of the table as it is shown."""
    code = """(() => {
        const i = [...document.querySelectorAll('#table thead th')].findIndex(th => th.textContent === arguments[0]);
        return [...document.querySelectorAll('#table tbody tr')].map(tr => tr.cells[i]?.textContent);
    })()"""
    return js(browser, code.replace("arguments[0]", json.dumps(heading)))


def wait(browser: Any, code: str) -> None:
    """Until an expression is true, ten seconds at most."""
    for _ in range(200):
        if js(browser, code):
            return
        time.sleep(0.05)
    pytest.fail(f"never true: {code}")


def test_the_page_opens_from_disk_and_loads_nothing_from_elsewhere(index: Any, site: SimpleNamespace):
    assert len(column(index, "run")) == 10
    loaded = js(index, "[...document.querySelectorAll('[src], link[href]')].map(e => e.src || e.href)")
    assert any(name.endswith("/pages/plotly.min.js") for name in loaded)
    assert [name for name in loaded if not name.startswith(("file:", "data:"))] == []
    assert js(index, "document.getElementById('plot').data.length") == 3  # closed form, the experiment, no report


def test_nasty_text_is_shown_as_it_is(index: Any, site: SimpleNamespace):
    headings = js(index, "[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert f"A trial {NASTY}" in headings
    assert js(index, "document.querySelector('.question').textContent") == f"Does it work? {NASTY}"
    assert NASTY in column(index, "dataset")
    js(index, "document.getElementById('colour').value = 'dataset'")
    js(index, "document.getElementById('colour').dispatchEvent(new Event('change'))")
    legend = js(index, "[...document.querySelectorAll('#plot .legendtext')].map(t => t.textContent)")
    assert any("window.hurt" in name for name in legend)
    failed = next(folder for folder in site.folders if (folder / "failed.json").exists())
    index.get((site.path / "pages" / f"{failed.name}.html").as_uri())
    assert NASTY.split()[0] in js(index, "document.querySelector('.status').parentElement.textContent")


def test_columns_are_the_settings_that_differ_among_the_runs_shown(index: Any):
    def settings() -> list[str]:
        heads = js(index, "[...document.querySelectorAll('#table thead th')].map(th => th.textContent)")
        return heads[heads.index("experiment") + 1 : heads.index("KL (nats)")]

    assert settings() == ["dataset", "x_var", "seed"]
    index.find_element("css selector", "#facet-experiment [value=trial]").click()
    assert len(column(index, "run")) == 9
    assert settings() == ["x_var", "seed"]
    index.find_element("css selector", "[id='facet-x_var.value'] [value='0.1']").click()
    assert settings() == ["seed"]
    assert len(column(index, "run")) == 3
    assert "x_var 0.1" in js(index, "document.getElementById('fixed').textContent")


def test_sorting_by_mouse_and_keyboard_puts_runs_without_a_number_last(index: Any):
    from selenium.webdriver.common.keys import Keys

    def sorted_by(heading: str) -> str:
        code = "[...document.querySelectorAll('#table th')].find(th => th.textContent === '{}').ariaSort"
        return js(index, code.replace("{}", heading))

    def numbers() -> list[float]:
        shown = column(index, "SSE")
        assert shown[-1] == "–"  # the failed run
        return [float(text) for text in shown[:-1]]

    index.find_element("css selector", "[data-sort=test_sse]").click()
    assert numbers() == sorted(numbers())
    assert sorted_by("SSE") == "ascending"
    assert sorted_by("KL (nats)") == "none"
    index.switch_to.active_element.send_keys(Keys.ENTER)  # the button keeps the focus
    assert numbers() == sorted(numbers(), reverse=True)
    assert sorted_by("SSE") == "descending"
    index.find_element("css selector", "[data-sort=test_kl]").send_keys(Keys.TAB)
    assert js(index, "document.activeElement.dataset.sort") == "test_sse"
    assert "3px" in js(index, "getComputedStyle(document.activeElement).outline")
    index.switch_to.active_element.send_keys(Keys.SPACE)
    assert numbers() == sorted(numbers())


def test_search_and_filters_narrow_the_table_and_the_plot_and_stand_in_the_address(index: Any, site: SimpleNamespace):
    index.find_element("id", "search").send_keys("x_var=0.1 trial")
    wait(index, "document.querySelectorAll('#table tbody tr').length === 3")
    assert set(column(index, "run")) == {f.name for f in site.folders if "x_var0.1-" in f.name}
    assert js(index, "document.getElementById('plot').data.at(-1).x.length") == 3
    index.find_element("css selector", "#facet-status [value=ok]").click()
    address = index.current_url
    index.get("about:blank")
    index.get(address)
    assert len(column(index, "run")) == 3
    index.find_element("id", "reset").click()
    assert len(column(index, "run")) == 10
    index.find_element("css selector", "#facet-status [value=collapsed]").click()
    assert column(index, "status") == ["collapsed"]
    index.find_element("id", "search").send_keys("no run has this")
    wait(index, "document.querySelectorAll('#table tbody tr').length === 0")
    assert "0 of 10" in js(index, "document.getElementById('count').textContent")


def test_an_old_link_to_what_is_gone_opens_the_index(index: Any, site: SimpleNamespace):
    index.get("about:blank")
    index.get(f"{site.url}#sort=-gone&colour=gone&compare=gone&gone=1")
    assert len(column(index, "run")) == 10


def test_pointing_at_a_run_shows_its_samples_and_a_click_opens_its_page(index: Any, site: SimpleNamespace):
    from selenium.webdriver import ActionChains

    js(index, "document.getElementById('plot').scrollIntoView()")
    code = """(() => {
        const plot = document.getElementById('plot'), { xaxis, yaxis } = plot._fullLayout;
        const points = plot.data.filter(trace => trace.customdata).at(-1);
        const box = plot.getBoundingClientRect();
        return [box.left + xaxis._offset + xaxis.d2p(points.x[0]), box.top + yaxis._offset + yaxis.d2p(points.y[0])];
    })()"""
    index.find_element("css selector", "#facet-experiment [value=trial]").click()
    index.find_element("css selector", "[id='facet-x_var.value'] [value='0.1']").click()
    index.find_element("css selector", "#facet-seed [value='1']").click()
    js(index, "document.getElementById('plot').scrollIntoView()")
    x, y = js(index, code)
    actions = ActionChains(index)
    actions.w3c_actions.pointer_action.move_to_location(int(x) - 60, int(y) - 60)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.perform()
    wait(index, "!document.getElementById('card').hidden")
    wait(index, "document.querySelector('#card img').naturalWidth === 40")
    (run,) = [folder.name for folder in site.folders if folder.name.endswith("x_var0.1-seed1")]
    assert js(index, "document.querySelector('#card img').src").endswith(f"runs/{run}/samples.png")
    ActionChains(index).click().perform()
    wait(index, "document.getElementById('run-data') !== null")
    assert index.title == run


def test_two_chosen_runs_are_compared(index: Any, site: SimpleNamespace):
    a, b = (folder for folder in site.folders if folder.name.endswith(("x_var1-seed0", "x_var0.1-seed0")))
    for folder in (a, b):
        assert not js(index, "document.getElementById('overview').hidden")
        index.find_element("css selector", f"[aria-label='Compare {folder.name}']").click()
        assert index.find_element("id", "compare").is_enabled() == (folder == b)
    index.find_element("id", "compare").click()
    wait(index, "!document.getElementById('comparison').hidden")
    code = "[...document.querySelectorAll('#comparison tr')].map(tr => [...tr.cells].map(td => td.textContent))"
    rows = {row[0]: row[1:] for row in js(index, code)}
    assert rows[""][:2] == [a.name, b.name]
    assert rows["x_var"] == ["1", "0.1", ""]
    assert not rows.keys() & {"seed", "dataset", "model"}
    first, second = (json.loads((folder / "result.json").read_text())["test_sse"] for folder in (a, b))
    assert [float(text) for text in rows["SSE"]] == pytest.approx([first, second, second - first], rel=1e-3)
    pictures = js(
        index, "[...document.querySelectorAll('#comparison img')].map(i => i.src.split('/').slice(-2).join('/'))"
    )
    assert pictures == [f"{f.name}/{n}.png" for n in ("samples", "reconstructions", "traversals") for f in (a, b)]
    index.back()
    wait(index, "document.getElementById('comparison').hidden")


def test_the_pick_its_samples_and_the_runner_up_are_a_click_away(index: Any, site: SimpleNamespace):
    found = advice.advise(report.read("trial", site.path))[0]
    first, second = (found.options[i] for i in advice.finalists(found))
    text = js(index, "document.querySelector('.experiment').textContent")
    assert found.verdict in text
    assert first.name in text
    index.find_element("partial link text", "with the runner-up").click()
    wait(index, "!document.getElementById('comparison').hidden")
    names = js(index, "[...document.querySelectorAll('#comparison thead a')].map(a => a.textContent)")
    assert names == [option.cell.runs[0].name for option in (first, second)]
    index.get(site.url)
    index.find_element("partial link text", "Samples of").click()
    wait(index, "document.getElementById('run-data') !== null")
    assert index.title == first.cell.runs[0].name
    assert js(index, "document.querySelector('#pictures ~ .pictures img').src").endswith("/samples.png")


def test_a_run_page_draws_its_curves_and_every_page_opens_without_an_error(index: Any, site: SimpleNamespace):
    run = site.folders[0]
    index.get((site.path / "pages" / f"{run.name}.html").as_uri())
    wait(index, "document.querySelectorAll('#learning .main-svg').length > 0")
    labels = js(index, "[...document.querySelectorAll('#learning [role=img]')].map(e => e.ariaLabel.split(' (')[0])")
    assert labels[:2] == ["training KL", "training SSE"]
    kl = json.loads((run / "result.json").read_text())["test_kl_per_dim"]
    bars = js(index, "Array.from(document.getElementById('kl-per-dim').data[0].y)")
    assert bars == pytest.approx(sorted(kl, reverse=True), rel=1e-5)
    names = js(index, "[...document.querySelectorAll('figcaption')].map(e => e.textContent)")
    assert names[:3] == ["samples", "reconstructions", "traversals"]
    for page in sorted((site.path / "pages").glob("*.html"))[::4]:
        index.get(page.as_uri())
        assert js(index, "document.querySelector('h1').textContent") == page.stem


def test_dark_mode_and_a_phone(index: Any, site: SimpleNamespace):
    def ground() -> str:
        return js(index, "getComputedStyle(document.body).backgroundColor")

    def ink() -> str:
        return js(index, "document.getElementById('plot').layout.font.color")

    light = ground(), ink()
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    index.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    wait(index, f"document.getElementById('plot').layout.font.color !== {light[1]!r}")
    assert ground() != light[0]
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    index.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for page in (site.url, (site.path / "pages" / f"{site.folders[0].name}.html").as_uri()):
            index.get(page)
            wait(index, "document.documentElement.scrollWidth <= 390")  # wide tables scroll by themselves
    finally:
        index.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        index.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_two_thousand_runs_stay_small(browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_many(tmp_path, 2000)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        browse.write(tmp_path)
        times.append(time.perf_counter() - start)
    size = sum(p.stat().st_size for p in (tmp_path / "pages").iterdir() if p.suffix != ".html")
    size += (tmp_path / "index.html").stat().st_size
    assert size < 15e6
    browser.get((tmp_path / "index.html").as_uri())
    wait(browser, "document.querySelectorAll('#table tbody tr').length === 200")
    opened = js(browser, "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    assert js(browser, "document.getElementById('count').textContent") == "2001 runs"
    with capsys.disabled():
        print(f"\n2,000 runs: written in {times[0]:.1f} s, again in {times[1]:.1f} s; {size / 1e6:.1f} MB; ", end="")
        print(f"opened in {opened:.1f} s")
