"""Figures: drawn for any sweep, small enough, with all text inside, and showing the numbers of the runs."""

import importlib
import io
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import DATA, fake_arrays, fake_history, fake_pictures, fake_report, put, sha256
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from experiments.frame import Report
from experiments.reading import read
from experiments.report import figures
from experiments.report.closed_form import curves
from experiments.report.figures import style
from experiments.report.figures.gallery import gallery
from experiments.report.figures.joint import joint
from experiments.report.figures.learning import slopes
from experiments.report.figures.search import search
from experiments.report.figures.tradeoff import tradeoff
from experiments.report.render import say
from experiments.statistics import Interval, mean_interval
from vae import theory
from vae.sheet import Sheet

spectrum = importlib.import_module("experiments.report.figures.spectrum")
strips = importlib.import_module("experiments.report.figures.expost")
sheets = importlib.import_module("experiments.report.figures.sheets")
HASH = "d" * 64
ALL = ["swept", "rate_distortion", "learning", "samples", "reconstructions"]


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, in their order."""
    found: list[Figure] = []

    class Recorder(FigureCanvasAgg):
        def draw(self) -> None:
            super().draw()
            found.append(self.figure)

    monkeypatch.setattr(style, "FigureCanvasAgg", Recorder)
    return found


def checked(drawn: style.Drawn | None) -> style.Drawn:
    assert drawn is not None
    with Image.open(io.BytesIO(drawn.png)) as image:
        image.load()
        assert image.mode in ("P", "L")
        assert image.width == 1200
    assert len(drawn.png) <= style.MAX_BYTES
    caption = say("figure_captions.md.j2", drawn.kind, drawn.values)
    assert caption[0].isupper()
    assert caption[-1] in ".?"
    assert not {"  ", "\n"} & {caption[i : i + n] for n in (1, 2) for i in range(len(caption))}
    return drawn


def inside(figure: Figure) -> None:
    """All text lies on the canvas, and no two texts of the axes and legends cover each other."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    hidden = set()  # labels of ticks outside the panel
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        hidden |= {
            t.label1 for t in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if not low <= t.get_loc() <= high
        }
    shown = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            box = text.get_window_extent(renderer)
            assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= -1, text
            shown.append((text, box))
    for (a, first), (b, second) in itertools.combinations(shown, 2):
        covered = (
            min(first.x1, second.x1) - max(first.x0, second.x0),
            min(first.y1, second.y1) - max(first.y0, second.y0),
        )
        assert min(covered) <= 2, (a, b)


SWEEPS: dict[str, dict[str, Any]] = {
    "one run": {},
    "seeds only": {"params": {"seed": [0, 1, 2]}},
    "numbers": {"params": {"x_var.value": [1, 0.3, 0.1, 0.03, 0.01], "seed": [0, 1]}},
    "words": {"params": {"model.kind": ["mlp", "conv", "linear"], "seed": [0, 1]}},
    "words and no value": {"params": {"label_repeat.value": [None, 5], "seed": [0, 1]}},
    "numbers and words": {
        "params": {"x_var.value": [1, 0.1], "label_placement.kind": ["both", "decoder", "none"], "seed": [0, 1]}
    },
    "points": {
        "params": {"seed": [0, 1]},
        "points": [{"z_dim.value": k, "beta.value": b} for k, b in ((5, 0.1), (10, 0.1), (10, 0.01))],
        "fixed": {"objective.kind": "per_dim", "label_placement.kind": "none"},
    },
    "four settings": {
        "params": {
            "x_var.value": [1, 0.1],
            "label_placement.kind": ["both", "decoder", "encoder", "none"],
            "trainer.lr": [1e-3, 1e-2],
            "model.kind": ["mlp", "linear"],
        }
    },
    "many values": {"params": {"x_var.value": [0.01 * i for i in range(1, 31)]}},
    "many words": {"params": {"model.activation": [f"a rather long name of number {i}" for i in range(30)]}},
    "odd names": {"params": {"model.activation": ["$^$", "_x", "漢字\n\\frac{", "%s {0}"], "seed": [0, 1]}},
}
ALIKE = ("seeds only", "numbers", "words")  # drawn as others here are


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sweep",
    [pytest.param(own, id=name, marks=[pytest.mark.slow] * (name in ALIKE)) for name, own in SWEEPS.items()],
)
def test_any_sweep_can_be_drawn(tmp_path: Path, canvases: list[Figure], sweep: dict[str, Any]):
    fake_report(tmp_path, pictures=True, **sweep)
    report = read("trial", tmp_path)
    drawn, reasons = figures.all_figures(report)
    assert reasons == {}
    with_spectrum = [*ALL[:2], "spectrum", *ALL[2:]] if report.main in spectrum.SWEPT else ALL
    assert list(drawn) == [f"{name}.png" for name in with_spectrum]
    for figure in [*drawn.values(), joint(report, {}, HASH)]:
        checked(figure)
    for figure in canvases:
        inside(figure)


def test_nothing_is_drawn_from_nothing(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0, 1]}, change=lambda settings, row: "no luck")
    report = read("trial", tmp_path)
    assert figures.all_figures(report) == ({}, {})
    assert joint(report, {}, HASH) is None
    fake_report(tmp_path, "other", params={"seed": [2, 3]})
    assert joint(report, {"other": read("other", tmp_path).runs}, HASH) is None  # nor others' runs alone


def test_holes_and_missing_files_are_left_out(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        return None if settings["x_var.value"] == 0.1 or settings["seed"] == 1 else row

    folders = fake_report(
        tmp_path, params={"x_var.value": [1, 0.1, 0.01], "seed": [0, 1]}, change=change, pictures=True
    )
    (folders[4] / "pictures.npz").write_bytes(b"no picture")
    (folders[4] / "history.csv").write_text("epoch,train_sse\n1,broken\n")
    drawn, reasons = figures.all_figures(read("trial", tmp_path))
    assert (list(drawn), reasons) == ([f"{name}.png" for name in [*ALL[:2], "spectrum", *ALL[2:]]], {})
    assert drawn["samples.png"].values["shown"] == 1
    (folders[0] / "history.csv").unlink()
    (folders[0] / "pictures.npz").unlink()
    assert list(figures.all_figures(read("trial", tmp_path))[0]) == [
        f"{name}.png" for name in ("swept", "rate_distortion", "spectrum")
    ]


def test_without_the_closed_form_the_measurements_are_drawn(tmp_path: Path):
    for folder in fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}):
        (folder / "metrics" / "theory.json").unlink()
    drawn, reasons = figures.all_figures(read("trial", tmp_path))
    assert {"swept.png", "rate_distortion.png", "learning.png"} <= set(drawn)
    assert reasons == {}
    assert drawn["swept.png"].values["kinds"] == []


def test_a_figure_that_fails_leaves_the_others():
    fine = style.Drawn(b"", "samples", {})
    drawn, reasons = style.attempted({"a": lambda: 1 / 0, "b": lambda: fine, "c": lambda: None})  # type: ignore[dict-item]
    assert drawn == {"b": fine}
    assert reasons == {"a": "ZeroDivisionError: division by zero"}


# ---------------------------------------------------------------------------------------------- values


def bars(figure: Figure, panel: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [c.lines[0].get_data() for c in figure.axes[panel].containers if isinstance(c, ErrorbarContainer)]  # type: ignore[misc]


def died(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Seed 1 of x_var 1 is collapsed."""
    dead = settings["seed"] == 1 and settings["x_var.value"] == 1
    return row | {"test_kl": 0.0, "test_active_units": 0, "test_sse": 13.1} if dead else row


def test_means_leave_out_runs_that_died(tmp_path: Path, canvases: list[Figure]):
    fake_report(tmp_path, params={"x_var.value": [0.1, 1], "seed": [0, 1, 2]}, change=died)
    report = read("trial", tmp_path)
    assert figures.swept(report).values["died"]  # type: ignore[union-attr]
    runs = report.usable[report.usable["outcome"] != "collapsed"].groupby("x_var.value")
    ((_, kl),), ((_, sse),), ((_, ratio),) = (bars(canvases[0], panel) for panel in range(3))
    assert kl == pytest.approx(runs["test_kl"].mean().tolist())
    assert sse == pytest.approx(runs["test_sse"].mean().tolist())
    assert ratio == pytest.approx(runs.apply(lambda r: (r["test_sse"] / r["test_theory_sse_high"]).mean()).tolist())


@pytest.mark.parametrize(("placement", "name"), [("both", "_within"), ("none", "")])
def test_the_closed_form_is_that_of_held_out_images(tmp_path: Path, canvases: list[Figure], placement: str, name: str):
    fake_report(tmp_path, params={"x_var.value": [0.1, 1]}, fixed={"label_placement.kind": placement})
    report = read("trial", tmp_path)
    figures.swept(report)
    facts = DATA[f"eigenvalues{name}"], DATA[f"test_variances{name}"]
    for panel, quantity in enumerate(("kl", "sse")):
        (line,) = [own for own in canvases[0].axes[panel].lines if own.get_linestyle() in ("--", ":")]
        x, y = np.array(line.get_data())
        ours = [getattr(theory.held_out(*facts, t, 10), quantity) for t in x]
        assert y == pytest.approx(np.array(ours), rel=1e-5)
        assert (x[0], x[-1]) == (pytest.approx(0.1), pytest.approx(1))


def test_curves_are_those_of_the_label_placement(tmp_path: Path):
    fake_report(tmp_path, params={"label_placement.kind": ["both", "decoder", "encoder", "none"]})
    report = read("trial", tmp_path)
    kinds = [[curve.kind for curve in curves(run, report.datasets)] for _, run in report.runs.iterrows()]
    assert kinds == [["within"], ["within", "all"], ["all"], ["all"]]


def test_the_ratio_at_equal_kl_is_one_on_the_curve(tmp_path: Path, canvases: list[Figure]):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        # Not at its own t, but twice that: on the curve all the same.
        on = theory.held_out(DATA["eigenvalues_within"], DATA["test_variances_within"], 2 * row["effective_x_var"], 10)
        return row | {"test_kl": on.kl, "test_sse": on.sse}

    fake_report(tmp_path, params={"x_var.value": [0.01, 0.1, 0.5]}, change=change)
    report = read("trial", tmp_path)
    figures.rate_distortion(report)
    plane, against = canvases[0].axes
    runs = [line for line in plane.lines if line.get_marker() in style.MARKERS]
    assert sorted(float(line.get_xdata()[0]) for line in runs) == pytest.approx(sorted(report.runs["test_kl"]))  # type: ignore[index]
    ratios = [float(line.get_ydata()[0]) for line in against.lines if line.get_marker() in style.MARKERS]  # type: ignore[index]
    assert ratios == pytest.approx([1] * 3, rel=1e-3)


def test_deaths_are_rates_and_say_what_they_leave_out(tmp_path: Path, canvases: list[Figure]):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        lr, seed = settings["trainer.lr"], settings["seed"]
        if lr == 0.02 or (lr == 0.01 and seed == 0):
            return row | {"status": "diverged", "diverged_epoch": 1}
        if lr == 0.003 and seed < 2:
            return row | {"test_kl": 0.0, "test_active_units": 0, "test_sse": 13.1}
        return "an error" if lr == 0.001 and seed == 0 else row

    fake_report(tmp_path, params={"trainer.lr": [0.001, 0.003, 0.01, 0.02], "seed": range(5)}, change=change)
    drawn = figures.deaths(read("trial", tmp_path))
    values = checked(drawn).values
    assert (values["lost"], values["diverged"]) == (True, True)
    inside(canvases[0])
    (ax,) = canvases[0].axes
    said = ["0 of 4 died, 1 failed", "2 of 5 died", "0 of 4 died, 1 diverged", "5 diverged"]
    assert [t.get_text() for t in ax.texts] == said
    lines = [c.lines[0] for c in ax.containers if isinstance(c, ErrorbarContainer)]
    assert [float(line.get_xdata()[0]) for line in lines] == [0, 40, 20, 100]  # type: ignore[index]
    assert [line.get_marker() for line in lines] == ["o", "^", "x", "x"]  # a setting that diverges has no "none died"
    assert [line.get_markerfacecolor() == "white" for line in lines] == [True, False, False, False]


def test_deaths_need_some_failure(tmp_path: Path):
    fake_report(tmp_path, params={"trainer.lr": [0.001, 0.003], "seed": range(5)})
    assert figures.deaths(read("trial", tmp_path)) is None


def test_learning_curves_are_means_over_seeds(tmp_path: Path, canvases: list[Figure]):
    folders = fake_report(tmp_path, params={"seed": [0, 1]})
    for folder, rows in zip(folders, (["1,10,1", "2,8,2", "3,7,3"], ["1,20,3", "2,10,4"]), strict=True):
        fake_history(folder, ["epoch,train_sse,train_kl", *rows])
    figures.learning(read("trial", tmp_path))
    kl, sse = (np.array(ax.lines[0].get_data()) for ax in canvases[0].axes)
    assert np.array_equal(kl, [[1, 2], [2, 3]])
    assert np.array_equal(sse, [[1, 2], [15, 9]])


def test_a_curve_that_begins_far_above_the_others_gives_a_logarithmic_axis(tmp_path: Path, canvases: list[Figure]):
    folders = fake_report(tmp_path, params={"x_var.value": [1, 0.1, 0.01]})
    for folder, first in zip(folders, (30, 40, 50_000), strict=True):
        fake_history(folder, ["epoch,train_sse,train_kl", f"1,{first},5", "2,20,6", "3,19,6"])
    drawn = checked(figures.learning(read("trial", tmp_path)))
    assert [ax.get_yscale() for ax in canvases[0].axes] == ["linear", "log"]
    assert drawn.values["log"] == ["sse"]
    inside(canvases[0])


def test_slopes_are_of_the_last_five_epochs():
    def history(sse: list[float], kl: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"train_sse": sse, "train_kl": kl})

    steep = history([99, 50, 45, 42, 41, 40.5, 40], [9, 10, 10, 10, 10, 10, 11])
    flat = history([20, 20, 20, 20, 20, 20, 20], [0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.02])  # collapsed
    short = history([9, 1], [1, 9])
    found = slopes([steep, flat, short])
    assert found["sse"] == pytest.approx((-20, 0))  # 40 / 50
    assert found["kl"] == pytest.approx((10, 10))  # 11 / 10
    assert slopes([short]) == {}


@pytest.mark.parametrize(("placement", "name"), [("both", "_within"), ("none", "")])
def test_the_spectrum_is_that_of_training_images_next_to_the_closed_form(
    tmp_path: Path, canvases: list[Figure], placement: str, name: str
):
    """Means over seeds of the sorted KL, and ½·ln(l/t) for each eigenvalue l above t."""
    kl = {0: [0.5, 2.0, 0.0], 1: [1.0, 0.2, 3.0]}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return died(settings, row) | {"train_kl_per_dim": kl[settings["seed"]]}

    params = {"x_var.value": [1, 0.1], "seed": [0, 1]}
    fake_report(tmp_path, params=params, change=change, fixed={"label_placement.kind": placement})
    drawn = checked(figures.spectrum(read("trial", tmp_path)))
    assert drawn.values["died"]
    first, second = ({line.get_linestyle(): np.array(line.get_data()) for line in ax.lines} for ax in canvases[0].axes)
    assert first["-"][1] == pytest.approx([2.0, 0.5, 0.0])  # seed 1 of x_var 1 collapsed
    assert second["-"].tolist() == [[1, 2, 3], pytest.approx([2.5, 0.75, 0.1])]
    for t, lines in ((1.0, first), (0.1, second)):
        expected = [0.5 * math.log(v / t) for v in DATA[f"eigenvalues{name}"][:10] if v > t]
        assert lines["--" if name else ":"][1] == pytest.approx(expected)
        assert lines["-."][1] == pytest.approx([0.005025] * 2, rel=1e-3)  # -½·ln 0.99


def test_a_line_of_the_sweep_has_one_colour_in_all_figures(tmp_path: Path, canvases: list[Figure]):
    """Also where a figure shows fewer lines than another."""
    params = {"x_var.value": [1, 0.1], "seed": [0, 1]}
    points = [{"model.hidden": [size]} for size in (10, 20, 30, 40, 50, 60, 70)]
    kl = {"train_kl_per_dim": [1.0, 2.0]}
    fake_report(tmp_path, params=params, points=points, change=lambda settings, row: row | kl)
    report = read("trial", tmp_path)
    for draw in (figures.swept, figures.spectrum):
        checked(draw(report, report.cells[-1:]))
    of_swept, of_spectrum = (
        {handle.get_label(): handle.get_color() for handle in canvas.legends[0].legend_handles}  # type: ignore[union-attr]
        for canvas in canvases
    )
    shared = {name for name in of_spectrum if str(name).startswith("[")}
    assert len(shared) == spectrum.MAX_LINES
    assert {name: of_swept[name] for name in shared} == {name: of_spectrum[name] for name in shared}


ASKED = {"metrics": ["expost"]}


def test_strips_of_the_prior_the_fit_and_reconstructions_are_those_of_the_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folders = fake_report(tmp_path, params={"x_var.value": [1, 0.1]}, study=ASKED)
    rng = np.random.default_rng(0)
    names = ("inputs", "reconstructions", "prior", "gaussian", "mixture")
    stored = {name: rng.integers(0, 256, (10, 1, 8, 8), dtype=np.uint8) for name in names}
    fake_arrays(folders[1], "expost", stored, expost_gaussian_ffd=1.0)
    tiles: list[np.ndarray] = []
    monkeypatch.setattr(strips, "tiled", lambda images, scale: tiles.append(images) or sheets.tiled(images, scale))
    drawn = checked(figures.expost(read("trial", tmp_path)))
    assert (drawn.values["shown"], drawn.values["total"]) == (1, 2)
    shown = [tile[0] for tile in tiles]
    expected = [stored[name][i : i + 5] for name in ("prior", "gaussian", "reconstructions") for i in (0, 5)]
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.mark.parametrize(("n", "shape"), [(10, (3, 32, 32)), (10, (3, 64, 48)), (10, (1, 300, 300)), (1, (1, 8, 8))])
def test_strips_of_any_images(tmp_path: Path, n: int, shape: tuple[int, int, int]):
    values = [f"a rather long name {i}" for i in range(9)]
    for folder in fake_report(tmp_path, params={"model.activation": values}, study=ASKED):
        images = dict.fromkeys(strips.GROUPS, np.zeros((n, *shape), np.uint8))
        fake_arrays(folder, "expost", images, expost_gaussian_ffd=1.0)
    checked(figures.expost(read("trial", tmp_path)))


def test_no_strips_where_another_experiment_asked_for_them(tmp_path: Path):
    images = dict.fromkeys(strips.GROUPS, np.zeros((10, 1, 8, 8), np.uint8))
    for folder in fake_report(tmp_path, params={"x_var.value": [1, 0.1]}):
        fake_arrays(folder, "expost", images, expost_gaussian_ffd=1.0)
    assert figures.expost(read("trial", tmp_path)) is None


# ---------------------------------------------------------------------------------------------- subsets


def test_settings_of_the_text_are_always_shown(tmp_path: Path, canvases: list[Figure]):
    values = [f"name{i}" for i in range(40)]
    fake_report(tmp_path, params={"model.activation": values}, pictures=True)
    report = read("trial", tmp_path)
    must = [report.cells[3], report.cells[17]]
    drawn, _ = figures.all_figures(report, must)
    assert [f.values["shown"] for f in drawn.values()] == [24, 24, 8, 12, 12]
    for figure in canvases:
        texts = [t.get_text() for t in figure.findobj(Text)]
        assert {"name3", "name17"} <= set(texts)
    assert {"name3", "name17"} <= {cell.settings["model.activation"] for cell in sheets.chosen(report, must)[0]}


@pytest.mark.parametrize(
    ("n", "must", "expected"), [(3, (), [0, 4, 9]), (3, (5,), [0, 5, 9]), (10, (1,), [*range(10)])]
)
def test_spread(n: int, must: tuple[int, ...], expected: list[int]):
    found = style.spread(range(10), n, must)
    assert found == expected


def test_no_two_settings_look_alike():
    looks = [style.marks(i) for i in range(style.MAX_STYLES)]
    assert len({(look["marker"], look["color"]) for look in looks}) == style.MAX_STYLES  # whatever their fill
    assert [look["markerfacecolor"] == "white" for look in looks] == [False] * 12 + [True] * 12
    assert len({look["color"] for look in looks[:12]}) == 12


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 300, 300)])
def test_sheets_of_any_images(tmp_path: Path, shape: tuple[int, int, int]):
    data = DATA | {"image_shape": list(shape)}
    fake_report(tmp_path, params={"label_placement.kind": ["both", "none"]}, data=data, pictures=True)
    report = read("trial", tmp_path)
    for drawn in (figures.samples(report), figures.reconstructions(report)):
        assert drawn is not None
        assert len(drawn.png) <= style.MAX_BYTES


def test_the_images_are_those_of_the_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (folder,) = fake_report(tmp_path, pictures=True)
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(sheets, "tiled", lambda images, scale: drawn.append(images) or np.zeros((8, 8, 3), np.uint8))
    report = read("trial", tmp_path)
    stored = np.load(folder / "pictures.npz")
    figures.samples(report)
    figures.reconstructions(report)
    samples, pairs = drawn
    assert np.array_equal(samples, stored["samples"])
    picked = style.spread(range(20), 10)
    assert np.array_equal(pairs[0], stored["inputs"][picked])
    assert np.array_equal(pairs[1], stored["reconstructions"][picked])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_enlarged_and_stand_in_their_rows(channels: int):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, channels, 4, 5), dtype=np.uint8)
    picture = sheets.tiled(images, 3)
    assert picture.shape == (2 * (3 * 4 + 2), 3 * (3 * 5 + 2), 3)
    for row, column in np.ndindex(2, 3):
        one = picture[14 * row : 14 * row + 12, 17 * column : 17 * column + 15]
        assert np.array_equal(one[::3, ::3], np.broadcast_to(images[row, column].transpose(1, 2, 0), (4, 5, 3)))
        assert np.array_equal(one[2::3, 1::3], one[::3, ::3])
    assert (picture[12:14] == 255).all()


def test_classes_may_have_any_name(tmp_path: Path):
    folders = fake_report(tmp_path, params={"seed": [0]}, pictures=True)
    names = ["$^$", "漢字", "", "a\nb", "a very long name of a class indeed", "\\", "_", "{", "%", "é"]
    fake_pictures(folders[0], labels=names)
    checked(figures.samples(read("trial", tmp_path)))


def test_a_gallery_is_read_from_its_arrays(tmp_path: Path):
    sheet = Sheet(np.zeros((2, 3, 1, 8, 8), np.uint8), ["a", "b"], note="zeros")
    path = tmp_path / "gallery.npz"
    np.savez(path, **sheet.arrays("traversals"))  # type: ignore[arg-type]
    (tmp_path / "metrics").mkdir()
    put(tmp_path / "metrics" / "gallery.json", {"files": {path.name: sha256(path)}})
    drawn = gallery({"path": str(tmp_path), "seed": 3}, "x_var 1")
    assert list(drawn) == ["traversals.png"]
    figure = drawn["traversals.png"]()
    assert figure is not None
    assert "x_var 1, seed 3" in say("figure_captions.md.j2", figure.kind, figure.values)
    with Image.open(io.BytesIO(figure.png)) as image:
        assert image.size == sheet.draw().size


def test_noise_is_shrunk_below_the_limit():
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    assert len(style.shrunk(Image.fromarray(noise))) <= style.MAX_BYTES
    plain = Image.new("RGB", (300, 200), "white")
    assert Image.open(io.BytesIO(style.shrunk(plain))).size == (300, 200)


def test_a_grey_picture_keeps_every_level_and_noise_of_it_is_shrunk_too():
    levels = np.tile(np.arange(256, dtype=np.uint8), (40, 1))
    image = Image.open(io.BytesIO(style.shrunk(Image.fromarray(levels).convert("RGB"))))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), levels)
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200), dtype=np.uint8)
    assert len(style.shrunk(Image.fromarray(noise).convert("RGB"))) <= style.MAX_BYTES


# ---------------------------------------------------------------------------------------------- other reports, advice


def test_joint_names_the_reports_that_it_shows(tmp_path: Path, canvases: list[Figure]):
    fake_report(tmp_path, "first", params={"x_var.value": [0.1, 1]})
    fake_report(tmp_path, "second", params={"x_var.value": [0.3]}, fixed={"label_placement.kind": "none"})
    fake_report(tmp_path, "failed", params={"x_var.value": [0.2]}, change=lambda settings, row: "no luck")
    reports: list[Report] = [read(name, tmp_path) for name in ("first", "second", "failed")]
    drawn = checked(joint(reports[0], {report.name: report.runs for report in reports[1:]}, HASH))
    assert drawn.values["reports"] == ["first", "second"]
    assert drawn.values["runs"] == 3
    shown = [
        v
        for line in canvases[0].axes[1].lines
        for v in np.atleast_1d(line.get_ydata())
        if line.get_marker() in ("o", "D")
    ]
    expected = [v for r in reports[:2] for v in r.usable["test_sse"]]
    assert sorted(shown) == pytest.approx(sorted(expected))


def option(name: str, *means: float, scored: bool = True) -> SimpleNamespace:
    scores = tuple(mean_interval([m, 1.1 * m]) for m in means) if scored else (Interval(math.nan, 0, 0, 0),) * 2
    return SimpleNamespace(settings={"model.kind": name}, scores=scores, trained=True, scored=scored)


def test_a_sweep_without_closed_forms_shows_the_column_of_its_finding(tmp_path: Path, canvases: list[Figure]):
    bits = {"mlp": 7.0, "conv": 5.0, "linear": 2.0}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        own = {"test_bits_per_dim": bits[settings["model.kind"]] + 0.01 * settings["seed"]}
        return row | own | ({} if settings["model.kind"] == "mlp" else {"effective_x_var": None})

    study = {"columns": ["test_bits_per_dim"]}
    fake_report(tmp_path, params={"model.kind": list(bits), "seed": [0, 1, 2]}, change=change, study=study)
    report = read("trial", tmp_path)
    drawn = checked(figures.swept(report))
    assert say("figure_captions.md.j2", "swept", drawn.values).startswith("KL, SSE and bits per dimension, on held-out")
    means = [c.lines[0].get_xdata() for c in canvases[0].axes[2].containers if isinstance(c, ErrorbarContainer)]
    assert [*np.concatenate(means)] == pytest.approx([value + 0.01 for value in bits.values()])
    checked(figures.rate_distortion(report))
    ratios = [line for line in canvases[1].axes[1].lines if line.get_marker() in style.MARKERS]
    assert [np.size(line.get_xdata()) for line in ratios] == [3, 3, 3]  # at equal KL all can be compared


def test_runs_with_a_bug_have_no_closed_form_of_a_correct_vae(tmp_path: Path):
    fake_report(tmp_path, params={"bug.kind": ["none", "half_kl"], "seed": [0, 1]})
    report = read("trial", tmp_path)
    assert [len(curves(cell.first, report.datasets)) for cell in report.cells] == [1, 0]  # type: ignore[arg-type]
    drawn = checked(joint(report, {}, HASH))
    assert drawn.values["runs"] == 2


@pytest.mark.parametrize("n", [1, 3])
def test_tradeoff(canvases: list[Figure], n: int):
    options = [
        option("a", 5, 40),
        option("b", 8, 9),
        option("c", 20, 4),
        option("d", 30, 30),
        option("e", scored=False),
    ]
    advice = SimpleNamespace(
        dataset="$^$", options=options, eligible=[0, 1, 2], front=[0, 1, 2], pick=1, recommended=True
    )
    drawn = checked(tradeoff([advice] * n))
    assert drawn.values["absent"] == n
    assert drawn.values["cut"]  # two seeds that differ by a tenth have intervals of 60 % of their mean
    swatches = {h.get_label(): h.get_markerfacecolor() for h in canvases[0].legends[0].legend_handles}  # type: ignore[union-attr]
    assert [name for name in "abcd" if swatches[name] == "white"] == ["d"]  # as it is drawn
    inside(canvases[0])
    ax = canvases[0].axes[0]
    assert len(canvases[0].axes) == n
    points = [[float(v[0]) for v in c.lines[0].get_data()] for c in ax.containers if isinstance(c, ErrorbarContainer)]  # type: ignore[misc]
    assert points == [pytest.approx([s.mean for s in o.scores]) for o in options[:4]]
    legend = [t.get_text() for t in canvases[0].legends[0].get_texts() if t.get_text().strip()]
    assert {*legend} == {
        "a",
        "b",
        "c",
        "d",
        "Pareto front",
        "line between its ends",
        "hollow: cannot be recommended",
        "recommended",
    }


@pytest.mark.parametrize("objectives", [{"test_sse": "minimize"}, {"test_sse": "minimize", "sample_ffd": "maximize"}])
def test_search(canvases: list[Figure], objectives: dict[str, str]):
    values = [(5.0, 2.0), (3.0, 1.0), (400.0, 4.0), (math.nan, 1.0)]
    trials = [
        SimpleNamespace(number=i + 1, values=v[: len(objectives)], usable=v[0] == v[0], allowed=i != 2)
        for i, v in enumerate(values)
    ]
    constraints = [{"column": "test_kl", "sign": "<=", "limit": 30.0}]
    drawn = checked(search(trials, objectives, [trials[1]], constraints))
    assert "test_kl ≤ 30" in say("figure_captions.md.j2", drawn.kind, drawn.values)
    inside(canvases[0])
    assert search(trials[3:], objectives, []) is None


def test_a_word_among_numbers_stands_apart_from_their_line(tmp_path: Path, canvases: list[Figure]):
    points = [{"x_var.kind": "fixed", "x_var.value": x} for x in (1, 0.1, 0.01)]
    points += [{"x_var.kind": "learned", "x_var.value": 0.1}]
    fake_report(tmp_path, params={"seed": [0, 1, 2]}, points=points)
    checked(figures.swept(read("trial", tmp_path)))
    kl = canvases[0].axes[0]
    assert [tick.get_text() for tick in kl.get_xticklabels()] == ["0.01", "0.1", "1", "learned"]
    joined, alone = [np.array(c.lines[0].get_xdata()) for c in kl.containers if isinstance(c, ErrorbarContainer)]
    assert joined.tolist() == [0.01, 0.1, 1]
    assert alone.tolist() == [kl.get_xticks()[-1]]
    assert alone[0] > 1


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("model.hidden 400, lr 0.001, x_var 10", 24, ["model.hidden 400,", "lr 0.001, x_var 10"]),
        ("beta 0.01, objective elbo, x_var 0.5", 32, ["beta 0.01, objective elbo,", "x_var 0.5"]),
        ("model.hidden 400, lr 0.03, model.output relu", 24, ["model.hidden 400, lr", "0.03, model.output relu"]),
        ("SSE (squared error per image)", 16, ["SSE (squared", "error per image)"]),
        ("one two three four five", 9, ["one two", "three …"]),
    ],
)
def test_a_setting_stays_with_its_value_where_that_fits(text: str, width: int, lines: list[str]):
    assert style.wrapped(text, width).split("\n") == lines
