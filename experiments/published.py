"""A study's table of KLD and R, compared with a correct VAE and with one that has a bug: values, no sentences.

The study's columns are sums over a batch of 128 of KL/k and SSE/D, so its rows can be compared with the closed forms of
any code that may have printed them. Everything is on training images, as the closed forms of bugs are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.frame import Cell, Report
from experiments.hypotheses import Diagnosis, Ranked, Row, Spectrum
from experiments.keys import same
from experiments.statistics import Interval, mean_interval
from vae.conventions import STUDY_BATCH

LOSS = {"pixels": "mean", "latents": "mean", "error": "whole", "range": "01", "batch": "sum"}  # as study B states it
CORRECT, BUG, HALF = "correct", "variance_as_std", "half_kl"
SHOWN = (CORRECT, BUG, HALF)


@dataclass(frozen=True)
class Found:
    """What the code with one bug, or without, gives for a row of the study.

    Attributes:
        closed: KLD and R of the closed form.
        trained: of this report's runs; None if none has the settings.
    """

    closed: tuple[float, float]
    trained: tuple[Interval, Interval] | None


@dataclass(frozen=True)
class Line:
    """A row of the study.

    Attributes:
        settings: as published.
        read_as: settings that it is read with instead; empty if it is read as published.
        published: KLD and R.
        by_bug: by the names in SHOWN.
    """

    settings: Mapping[str, Any]
    read_as: Mapping[str, Any]
    published: tuple[float, float]
    by_bug: Mapping[str, Found]


@dataclass(frozen=True)
class Published:
    """The table, and how well each hypothesis fits.

    Attributes:
        lines: one per row of the study.
        stated: the best hypothesis of each bug under the loss that the study states, by misfit.
        free: the same for any convention.
        n_stated, n_free: how many hypotheses were tried.
        trained: misfit of the trained runs by bug, for those that have all rows.
        impossible: a row whose loss as published exceeds that of the mean image, and the two losses; None without one.
    """

    lines: Sequence[Line]
    stated: Sequence[Ranked]
    free: Sequence[Ranked]
    n_stated: int
    n_free: int
    trained: Mapping[str, float]
    impossible: tuple[Line, float, float] | None

    def misfit(self, bug: str, stated: bool = True) -> float:
        """Root-mean-square log ratio of the best hypothesis with this bug."""
        return next(r.misfit for r in (self.stated if stated else self.free) if r.hypothesis.bug == bug)


def published(report: Report) -> Published | None:
    """The comparison; None for a report without runs with a bug, or on other data than the study's."""
    rows = [row for row in report.study.get("published") or () if {"kld_loss", "r_loss"} <= row.keys()]
    data = next(iter(report.datasets.values()))
    if not rows or "bug.kind" not in report.keys or not data["name"].startswith(str(report.study.get("data"))):
        return None
    spectrum = Spectrum(np.array(data["eigenvalues"]), np.array(data["eigenvalues_within"]), data["name"])
    size = len(spectrum.eigenvalues)
    read = [{**_settings(row), **row.get("read_as", {})} for row in rows]
    given = np.array([(row["kld_loss"], row["r_loss"]) for row in rows])  # (n, 2)
    asked = [
        Row(int(s["z_dim.value"]), s["beta.value"], 1.0, *pair) for s, pair in zip(read, given.tolist(), strict=True)
    ]
    known, free = Diagnosis(asked, spectrum, stated=LOSS, batch_size=STUDY_BATCH), Diagnosis(asked, spectrum)
    stated = known.best_of_bug(known.misfits(given))
    closed = {ranked.hypothesis.bug: ranked.predicted for ranked in stated}
    lines = [
        Line(
            _settings(row),
            row.get("read_as", {}),
            (row["kld_loss"], row["r_loss"]),
            {bug: Found(closed[bug][i], _trained(report, settings, bug, size)) for bug in SHOWN},
        )
        for i, (row, settings) in enumerate(zip(rows, read, strict=True))
    ]
    mean_image = STUDY_BATCH * data["sse_mean"]["train"] / size
    losses = [(line, line.published[1] + line.settings["beta.value"] * line.published[0]) for line in lines]
    return Published(
        lines,
        stated,
        free.best_of_bug(free.misfits(given)),
        len(known.hypotheses),
        len(free.hypotheses),
        {bug: misfit for bug in SHOWN if math.isfinite(misfit := _misfit(lines, bug))},
        next(((line, loss, mean_image) for line, loss in losses if loss > mean_image), None),
    )


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("z_dim.value", "beta.value")}


def _trained(report: Report, settings: Mapping[str, Any], bug: str, input_dim: int) -> tuple[Interval, Interval] | None:
    """KLD and R of the runs with these settings, as code with this bug prints them."""
    wanted = dict(settings)
    if bug == HALF:  # such code trains a correct VAE at half the beta
        wanted["beta.value"] /= 2
    kind = BUG if bug == BUG else "none"
    cell = next((c for c in report.cells if _has(report, c, {**wanted, "bug.kind": kind}) and len(c.usable)), None)
    if cell is None:
        return None
    kl, sse = ("train_printed_kl", "train_printed_r") if bug == BUG else ("train_kl", "train_sse")
    factor = STUDY_BATCH * (0.5 if bug == HALF else 1.0) / wanted["z_dim.value"]
    return mean_interval(factor * cell.values(kl)), mean_interval(STUDY_BATCH / input_dim * cell.values(sse))


def _has(report: Report, cell: Cell, settings: Mapping[str, Any]) -> bool:
    return all(same(report.setting(cell, key), value) for key, value in settings.items())


def _misfit(lines: Sequence[Line], bug: str) -> float:
    """Root-mean-square log ratio of the trained runs' values to the published ones; NaN if a row has no runs."""
    pairs = [(line.by_bug[bug].trained, line.published) for line in lines]
    if any(own is None for own, _ in pairs):
        return math.nan
    ratios = [math.log(a.mean / b) for own, given in pairs for a, b in zip(own or (), given, strict=True)]
    return math.sqrt(sum(r * r for r in ratios) / len(ratios))
