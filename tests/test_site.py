"""The page in a real browser, from disk, made from runs whose numbers are known beforehand.

The tests in the browser need Chromium with its driver (Debian: chromium, chromium-driver) and selenium.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FIXED, PROVENANCE, change, fake_pictures, fake_report, fake_run, put, row_of
from PIL import Image

from experiments import browse
from experiments.reading import read
from experiments.site import build, cards
from experiments.site.data import columns, meaning, read_entries, run_data, table_data
from experiments.store import RunFolder, read_json
from vae import theory
from vae.metrics import METRICS

NASTY = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>&amp; \"{{ 7*7 }}\""
SCORES = {"judge": "j", "judge_accuracy": 0.97, "real_ffd": 0.5, "reconstruction_ffd": 0.6, "sample_coverage": 0.9}
STRAY = "stray #1 %41-0123456789"
REPORT = f"""# A trial

*Does it work?* {NASTY} [bad](javascript:window.hurt=3)

![the main figure](figures/main.png)

| x_var | KL (nats) |
| ---: | ---: |
| 1 | 26.2 ± 0.3 |
| 0.1 | 1,100 |
| 0.01 | – |
| 0.3 | 9.5 ± 0.1 |

[details](details.md), [another](../other/report.md), [data](runs.csv)
"""


def scored(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
    """A change for fake_report: runs with scores of samples, one that failed and one that collapsed."""
    if settings["x_var.value"] == 1 and settings["seed"] == 2:
        return f"/home/somebody/data: {NASTY}"
    row |= SCORES | {"sample_accuracy": 0.9, "sample_ffd": 2 + 0.01 * settings["seed"], "sample_density": 1.0}
    if settings["x_var.value"] == 0.01 and settings["seed"] == 2:
        row |= {"test_active_units": 0, "test_kl": 0.0, "test_sse": row["test_baseline_class_means"]}
    return row


def draw_pictures(folders: list[Path]) -> None:
    for i, folder in enumerate(folders):
        for name in ("samples.png", "reconstructions.png", "traversals.png"):
            Image.new("RGB", (40, 40), (20 * i, 90, 90)).save(folder / name)


def write_report(folder: Path, text: str = REPORT, **summary: str) -> None:
    """What the report stage leaves in a report's folder."""
    (folder / "figures").mkdir(parents=True)
    Image.new("RGB", (400, 300), "white").save(folder / "figures" / "main.png")
    (folder / "report.md").write_text(text)
    (folder / "details.md").write_text("# Details\n\n## Likelihood\n\nmore\n")
    put(folder / "summary.json", summary)


def make_site(tmp_path: Path) -> list[Path]:
    """Nine runs of an experiment with a nasty name of its data, one run of other data without a report, a reference."""
    folders = fake_report(
        tmp_path,
        params={"x_var.value": [1, 0.1, 0.01], "seed": [0, 1, 2]},
        data={**DATA, "name": NASTY},
        study={"title": f"A trial {NASTY}", "question": f"Does it work? {NASTY}"},
        change=scored,
        pictures=True,
    )
    settings = {**FIXED, "x_var.value": 0.5}
    stray = tmp_path / "runs" / STRAY
    fake_run(stray, settings, row_of(settings, DATA))
    change(stray / "result.json", dataset_hash="e" * 64)
    (stray / "history.csv").write_text("not,a\nhistory\n")
    draw_pictures([*folders, stray])
    write_report(tmp_path / "reports" / "trial", title=f"A trial {NASTY}", answer=f"It works. {NASTY}")
    write_report(tmp_path / "reference" / "shipped", "# A shipped report\n", answer="Shipped answer.")
    build.write(tmp_path)
    return folders


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("site with a blank")
    return SimpleNamespace(path=path, folders=make_site(path), url=(path / "index.html").as_uri())


# ---------------------------------------------------------------------------------------------- without a browser


def stamps(folder: Path) -> dict[str, int]:
    """When each file below a folder was written, caches apart."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_only_what_changed_is_written_again_and_nothing_in_the_runs(tmp_path: Path):
    folders = fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, pictures=True)
    pages = [f"pages/{folder.name}.html" for folder in folders]
    strips = [f"pages/strips/{folders[i].name}.png" for i in (0, 2)]  # the first seed of each x_var
    runs = stamps(tmp_path / "runs")
    build.write(tmp_path)
    before = stamps(tmp_path)
    assert before.keys() >= {"index.html", "pages/plotly.min.js", *pages, *strips}
    build.write(tmp_path)
    assert stamps(tmp_path) == before
    assert stamps(tmp_path / "runs") == runs

    metrics = folders[0] / "metrics" / "reconstruction.json"
    change(metrics, values=read_json(metrics)["values"] | {"test_sse": 3.21})
    draw_pictures(folders[1:2])
    shutil.rmtree(folders[2])
    build.write(tmp_path)
    after = {name: stamp for name, stamp in stamps(tmp_path).items() if not name.startswith("runs")}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"index.html", "pages/.runs.json", *pages[:2], f"pages/strips/{folders[3].name}.png"}
    assert not after.keys() & {pages[2], strips[1]}


def test_outcomes_settings_and_numbers_are_the_reports(site: SimpleNamespace):
    report = read("trial", site.path, measure=False)
    data = table_data(read_entries([report], site.path))
    rows = {row["run"]: row for row in data["runs"]}
    assert len(rows) == 10
    settings, numbers = ([column["key"] for column in data[name]] for name in ("settings", "numbers"))
    assert numbers[:4] == ["test_kl", "test_sse", "sample_accuracy", "sample_ffd"]
    for run, known in report.runs.iterrows():
        row = rows[str(run)]
        assert row["outcome"] == known["outcome"]
        assert row["settings"][settings.index("x_var.value")] == known["x_var.value"]
        if known["usable"]:
            assert row["numbers"][numbers.index("test_kl")] == pytest.approx(known["test_kl"], rel=1e-5)
            assert row["numbers"][numbers.index("train_seconds")] == 60.0  # 600 s of a stack of ten
    assert sorted(row["outcome"] for row in rows.values()) == ["collapsed", "failed"] + ["ok"] * 8
    assert dict(zip(settings, rows[STRAY]["settings"], strict=True))["dataset"] == "synthetic"


def test_the_closed_forms_are_those_of_the_linear_vae(site: SimpleNamespace):
    """Held-out numbers lie beside the curve of held-out images, the training KL beside the training value."""
    entries = read_entries([read("trial", site.path, measure=False)], site.path)
    (curve,) = table_data(entries)["curves"]  # label in encoder and decoder, k = 10, for the runs whose data are known
    kl, sse = np.array(curve["kl"]), np.array(curve["sse"])
    for t in (0.05, 0.3, 1.0):
        best = theory.held_out(DATA["eigenvalues_within"], DATA["test_variances_within"], t, 10)
        assert np.interp(best.kl, kl[::-1], sse[::-1]) == pytest.approx(best.sse, rel=0.01)
    entry = next(e for e in entries if e.settings["x_var.value"] == 0.1 and e.reports)
    drawn = run_data(entry)["closed_form"][0]["kl"]
    assert drawn == pytest.approx(theory.optimum(DATA["eigenvalues_within"], 0.1, 10).kl_per_dim, rel=1e-5)


def test_no_page_has_an_absolute_path_of_this_machine(site: SimpleNamespace):
    pages = list(site.path.rglob("*.html"))
    assert len(pages) == 13  # the index, ten runs, two reports
    assert [p for p in pages for place in (str(site.path), "/home/somebody") if place in p.read_text()] == []


def test_an_experiment_in_progress_shows_how_far_it_is(tmp_path: Path):
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    folders = fake_report(
        tmp_path,
        params={"x_var.value": [1, 0.1], "seed": [0, 1]},
        change=lambda settings, row: row if settings["seed"] == 0 else None,
    )
    shutil.rmtree(folders[3])
    (folders[2] / "metrics" / "reconstruction.json").unlink()
    text = build.write(tmp_path).read_text()
    assert "In progress: 2 of 4 runs trained, 1 measured." in text
    assert 'value="2" max="4"' in text
    assert PROVENANCE["command"] in text
    entries = {e.name: e for e in read_entries([read("trial", tmp_path, measure=False)], tmp_path)}
    assert entries.keys() == {"empty", *(folder.name for folder in folders[:3])}
    assert [entries[name].row["outcome"] for name in ("empty", folders[1].name)] == ["missing", "missing"]


def test_without_experiments_the_page_says_what_to_run(tmp_path: Path):
    assert "make ablation-xvar" in build.write(tmp_path).read_text()


def test_a_report_whose_runs_were_removed_keeps_its_answer(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    write_report(tmp_path / "reports" / "trial", answer="It works.")
    shutil.rmtree(tmp_path / "runs")
    assert "It works." in build.write(tmp_path).read_text()


def test_the_columns_of_a_study_are_shown_for_its_own_runs_only(tmp_path: Path):
    published = [{"x_var.value": 1, "kl_offset": 50.0}]
    fake_report(tmp_path, "own", params={"seed": [0]})
    fake_report(tmp_path, "study", params={"seed": [0]}, study={"published": published})
    entries = read_entries([read(name, tmp_path) for name in ("own", "study")], tmp_path)
    for entry, shown in zip(entries, (False, True), strict=True):
        found = {"test_kl_offset", "test_r_half_sse", "test_kld_loss", "test_r_loss"} & columns([entry]).keys()
        assert len(found) == 4 * shown
        assert ("test_kl_offset" in entry.numbers) == shown
        assert "test_kl" in entry.numbers


def test_a_broken_report_is_named_and_the_others_are_shown(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]})
    (tmp_path / "reports" / "broken").mkdir()
    (tmp_path / "reports" / "broken" / "sweep.json").write_text("{")
    text = build.write(tmp_path).read_text()
    assert "broken" in text
    assert "A trial" in text
    assert str(tmp_path) not in text


def test_the_newest_experiment_is_first(tmp_path: Path):
    for i, name in enumerate(("b", "c", "a")):
        fake_report(tmp_path, name, params={"seed": [0]})
        os.utime(tmp_path / "reports" / name / "sweep.json", (1e9, 1e9 + i))
    assert [card.name for card in cards.user_cards(tmp_path)] == ["a", "c", "b"]


def test_the_strip_goes_along_the_swept_setting_also_where_another_plays_no_part(tmp_path: Path):
    points = [{"model.kind": "mlp", "x_var.kind": "learned"}, {"model.kind": "conv", "x_var.kind": "learned"}]
    fake_report(tmp_path, points=[*points, {"model.kind": "linear", "x_var.kind": None}], params={"seed": [0, 1]})
    (card,) = cards.user_cards(tmp_path)
    assert [*card.tiles[0].values()] == ["model mlp", "model conv", "model linear"]
    assert card.tiles[1] == "x_var learned"


def test_a_strip_has_one_sample_of_each_class_first(tmp_path: Path):
    (tmp_path / "metrics").mkdir()
    fake_pictures(tmp_path)
    with np.load(tmp_path / "pictures.npz") as arrays:
        samples = arrays["samples"]  # (classes, N, 1, 8, 8)
    (tmp_path / "strip.png").write_bytes(cards.strip(RunFolder(tmp_path)))
    drawn = np.asarray(Image.open(tmp_path / "strip.png"))
    assert drawn.shape == (16, 40)
    np.testing.assert_array_equal(drawn[8:, 16:24], samples[7, 0, 0])  # the third of the second row


def test_a_failure_is_one_line_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fake_report(tmp_path, params={"seed": [0]})
    (tmp_path / "pages").write_text("in the way")
    build.refresh(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "FileExistsError" in err
    assert err.count("\n") == 1
    assert browse.main(["--output-dir", str(tmp_path)]) == 1
    assert browse.main(["--output-dir", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(("terminal", "display", "opens"), [(True, ":0", 1), (True, "", 0), (False, ":0", 0)])
def test_the_address_is_printed_and_opened_where_there_is_a_desktop(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    display: str,
    opens: int,
):
    opened: list[str] = []
    monkeypatch.setattr(browse.webbrowser, "open", opened.append)
    monkeypatch.setattr(browse.sys, "platform", "linux")
    monkeypatch.setattr(browse.sys.stdout, "isatty", lambda: terminal)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    if not display:
        monkeypatch.delenv("DISPLAY")
    assert browse.main(["--output-dir", str(tmp_path)]) == 0
    address = (tmp_path / "index.html").as_uri()
    assert capsys.readouterr().out == f"{address}\n"
    assert opened == [address] * opens


def write_many(tmp_path: Path, n: int) -> None:
    """So many runs of one experiment, with 100 latent dimensions, 50 epochs and real settings."""
    rng = np.random.default_rng(0)
    spectrum = (4 * 0.97 ** np.arange(784)).tolist()
    spectra = dict.fromkeys(("eigenvalues", "eigenvalues_within", "test_variances", "test_variances_within"), spectrum)

    def noisy(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        kl_per_dim = {"train_kl_per_dim": rng.random(100).tolist(), "test_kl_per_dim": rng.random(100).tolist()}
        scores = {**SCORES, "sample_accuracy": rng.random(), "sample_ffd": 2 + rng.random(), "sample_density": 1.0}
        return row | kl_per_dim | scores | {"test_kl": row["test_kl"] + rng.random()}

    folders = fake_report(
        tmp_path,
        params={"x_var.value": [1, 0.3, 0.1, 0.03, 0.01], "seed": range(n // 5)},
        fixed={"z_dim.value": 100},
        data={**DATA, **spectra, "image_shape": [1, 28, 28]},
        change=noisy,
    )
    for folder in folders:
        (folder / "samples.png").touch()


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


def texts(browser: Any, selector: str) -> list[str]:
    return js(browser, f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def column(browser: Any, heading: str) -> list[str]:
    """A column of the table as it is shown."""
    i = texts(browser, "#table thead th").index(heading) + 1
    return texts(browser, f"#table tbody td:nth-child({i})")


def wait(browser: Any, code: str) -> None:
    """Until an expression is true, ten seconds at most."""
    for _ in range(200):
        if js(browser, code):
            return
        time.sleep(0.05)
    pytest.fail(f"never true: {code}")


def choose(browser: Any, key: str, value: str) -> None:
    """Sets a filter of the table."""
    js(browser, "document.getElementById('filters').open = true")
    browser.find_element("css selector", f"[id='facet-{key}'] [value='{value}']").click()


def test_the_page_opens_from_disk_and_loads_nothing_from_elsewhere(index: Any):
    assert len(column(index, "run")) == 10
    loaded = js(index, "[...document.querySelectorAll('[src], link[href]')].map(e => e.src || e.href)")
    assert any(name.endswith("/pages/plotly.min.js") for name in loaded)
    assert [name for name in loaded if not name.startswith(("file:", "data:"))] == []


def test_nasty_text_is_shown_as_it_is(index: Any, site: SimpleNamespace):
    assert texts(index, ".card h3")[0].strip() == f"A trial {NASTY}"
    assert texts(index, ".card .answer") == [f"It works. {NASTY}"]
    assert NASTY in column(index, "dataset")
    js(index, "document.getElementById('colour').value = 'dataset'")
    js(index, "document.getElementById('colour').dispatchEvent(new Event('change'))")
    wait(index, "[...document.querySelectorAll('#plot .legendtext')].some(t => t.textContent.includes('window.hurt'))")
    failed = next(folder for folder in site.folders if (folder / "failed.json").exists())
    index.get((site.path / "pages" / f"{failed.name}.html").as_uri())
    text = js(index, "document.querySelector('.outcome').parentElement.textContent")
    assert NASTY.split()[0] in text
    assert "/home" not in text
    index.get((site.path / "pages" / "reports" / "trial.html").as_uri())
    assert NASTY.replace("&amp;", "&") in js(index, "document.querySelector('.report').textContent")
    assert js(index, "document.querySelectorAll('[href^=javascript], .report script').length") == 0


def test_a_card_opens_the_report_as_a_page_with_its_figure_and_a_sortable_table(index: Any, site: SimpleNamespace):
    assert js(index, "document.querySelector('.card > .figure img').naturalWidth") == 400
    assert [a.split(" at ")[1] for a in js(index, "[...document.querySelectorAll('.strip img')].map(e => e.alt)")] == [
        "x_var 1",
        "x_var 0.1",
        "x_var 0.01",
    ]
    index.find_element("css selector", ".card h3 a").click()
    wait(index, "document.querySelector('.report img')?.naturalWidth === 400")
    assert [texts(index, "h1"), texts(index, "h2")] == [["A trial"], ["Details"]]
    links = js(index, "[...document.querySelectorAll('.report p a')].map(a => a.getAttribute('href'))")
    assert links == ["#details", "../reports/other.html", "../../reports/trial/runs.csv"]
    index.find_elements("css selector", "th button")[1].click()
    assert texts(index, "td:nth-child(2)") == ["9.5 ± 0.1", "26.2 ± 0.3", "1,100", "–"]
    index.find_elements("css selector", "th button")[1].click()
    assert texts(index, "td:nth-child(1)") == ["0.1", "1", "0.3", "0.01"]


def test_reference_results_are_collapsed_and_apart(index: Any):
    link = index.find_element("css selector", "a[href='pages/reference/shipped.html']")
    assert not link.is_displayed()
    index.find_element("css selector", "section[aria-labelledby=reference] summary").click()
    assert "Shipped answer." in js(index, "document.querySelector('.shipped').textContent")
    link.click()
    wait(index, "document.querySelector('.report') !== null")
    assert "came with the project" in js(index, "document.querySelector('.report').textContent")


def test_columns_are_the_main_numbers_and_the_settings_that_differ_among_the_runs_shown(index: Any):
    def settings() -> list[str]:
        heads = texts(index, "#table thead th")
        assert heads[:7] == ["compare", "run", "outcome", "KL (nats)", "SSE", "sample accuracy", "sample FFD"]
        return heads[7 : heads.index("experiment")]

    assert settings() == ["dataset", "x_var", "seed"]
    choose(index, "experiment", "trial")
    assert len(column(index, "run")) == 9
    assert settings() == ["x_var", "seed"]
    choose(index, "x_var.value", "0.1")
    assert settings() == ["seed"]
    assert len(column(index, "run")) == 3
    assert "x_var 0.1" in js(index, "document.getElementById('fixed').textContent")


def test_the_plot_shows_one_dataset_at_a_time(index: Any):
    def drawn() -> str:
        return "document.getElementById('plot').data.filter(t => t.customdata).reduce((n, t) => n + t.x.length, 0)"

    assert js(index, drawn()) == 8  # of nine, one failed
    js(index, "document.getElementById('dataset').value = 'synthetic'")
    js(index, "document.getElementById('dataset').dispatchEvent(new Event('change'))")
    wait(index, f"{drawn()} === 1")


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
    names = {f.name[-10:] for f in site.folders if "x_var0.1-" in f.name}
    assert {name[-10:] for name in column(index, "run")} == names
    wait(index, "document.getElementById('plot').data.at(-1).x.length === 3")
    choose(index, "outcome", "ok")
    address = index.current_url
    index.get("about:blank")
    index.get(address)
    wait(index, "document.querySelectorAll('#table tbody tr').length === 3")
    index.find_element("id", "reset").click()
    assert len(column(index, "run")) == 10
    choose(index, "outcome", "collapsed")
    assert column(index, "outcome") == ["collapsed"]
    index.find_element("id", "search").send_keys("no run has this")
    wait(index, "document.querySelectorAll('#table tbody tr').length === 0")
    assert "0 of 10" in js(index, "document.getElementById('count').textContent")


def test_an_old_link_to_what_is_gone_opens_the_index(index: Any, site: SimpleNamespace):
    index.get("about:blank")
    index.get(f"{site.url}#sort=-gone&colour=gone&compare=gone&plot=gone&gone=1")
    wait(index, "document.querySelectorAll('#table tbody tr').length === 10")


def test_pointing_at_a_run_shows_its_samples_and_a_click_opens_its_page(index: Any, site: SimpleNamespace):
    from selenium.webdriver import ActionChains

    code = """(() => {
        const plot = document.getElementById('plot'), { xaxis, yaxis } = plot._fullLayout;
        const points = plot.data.filter(trace => trace.customdata).at(-1);
        const box = plot.getBoundingClientRect();
        return [box.left + xaxis._offset + xaxis.d2p(points.x[0]), box.top + yaxis._offset + yaxis.d2p(points.y[0])];
    })()"""
    choose(index, "experiment", "trial")
    choose(index, "x_var.value", "0.1")
    choose(index, "seed", "1")
    wait(index, "document.getElementById('plot').data.at(-1).x.length === 1")
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
    metrics = [json.loads((folder / "metrics" / "reconstruction.json").read_text()) for folder in (a, b)]
    first, second = (entry["values"]["test_sse"] for entry in metrics)
    assert [float(text) for text in rows["SSE"]] == pytest.approx([first, second, second - first], rel=1e-3)
    images = js(
        index, "[...document.querySelectorAll('#comparison img')].map(i => i.src.split('/').slice(-2).join('/'))"
    )
    assert images == [f"{f.name}/{n}.png" for n in ("samples", "reconstructions", "traversals") for f in (a, b)]
    index.back()
    wait(index, "document.getElementById('comparison').hidden")


def test_a_run_page_draws_its_curves_and_every_page_opens_without_an_error(index: Any, site: SimpleNamespace):
    run = site.folders[0]
    index.get((site.path / "pages" / f"{run.name}.html").as_uri())
    wait(index, "document.querySelectorAll('#learning .main-svg').length > 0")
    wait(index, "document.getElementById('kl-per-dim').data")
    labels = js(index, "[...document.querySelectorAll('#learning [role=img]')].map(e => e.ariaLabel.split(' (')[0])")
    assert labels[:2] == ["training KL", "training SSE"]
    kl = json.loads((run / "metrics" / "reconstruction.json").read_text())["values"]["train_kl_per_dim"]
    bars = js(index, "Array.from(document.getElementById('kl-per-dim').data[0].y)")
    assert bars == pytest.approx(sorted(kl, reverse=True), rel=1e-5)
    assert texts(index, "figcaption")[:3] == ["samples", "reconstructions", "traversals"]
    rows = js(
        index, "[...document.getElementById('numbers').tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))"
    )
    values = json.loads((run / "metrics" / "reconstruction.json").read_text())["values"]
    told = {name: (float(value), text) for name, value, text in rows}
    assert told["test_kl"] == (pytest.approx(values["test_kl"], rel=1e-3), meaning("test_kl"))
    assert [name for name, *_ in rows] == [name for name in METRICS if name in told]
    assert "train_kl" in told
    for page in sorted((site.path / "pages").glob("*.html"))[::4]:
        index.get(page.as_uri())
        assert texts(index, "h1") == [page.stem]


def test_dark_mode_and_a_phone(index: Any, site: SimpleNamespace):
    def ground() -> str:
        return js(index, "getComputedStyle(document.body).backgroundColor")

    light, ink = ground(), js(index, "document.getElementById('plot').layout.font.color")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    index.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    wait(index, f"document.getElementById('plot').layout.font.color !== {ink!r}")
    assert ground() != light
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    index.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        pages = site.path / "pages"
        for page in (
            site.path / "index.html",
            pages / f"{site.folders[0].name}.html",
            pages / "reports" / "trial.html",
        ):
            index.get(page.as_uri())
            wait(index, "document.documentElement.scrollWidth <= 390")  # wide tables scroll by themselves
    finally:
        index.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        index.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.slow
def test_two_thousand_runs_stay_small_and_fast(browser: Any, tmp_path: Path):
    write_many(tmp_path, 2000)
    build.write(tmp_path)
    size = (tmp_path / "index.html").stat().st_size
    assert size < 3e6
    browser.get((tmp_path / "index.html").as_uri())
    wait(browser, "document.querySelectorAll('#table tbody tr').length === 100")
    painted = js(browser, "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
    assert js(browser, "document.getElementById('count').textContent") == "2000 runs"
    assert painted < 1.5
