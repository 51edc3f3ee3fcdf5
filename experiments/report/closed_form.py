"""The closed form on held-out images: a linear VAE fitted to the training images, applied to the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vae import theory

N_POINTS = 600  # of a whole curve


@dataclass(frozen=True)
class Curve:
    """The closed form of some data for a number of latent dimensions.

    Attributes:
        kind: `within`, of the within-class covariance, or `all`, of the unconditional one.
        datasets: facts of the data by content hash, as manifests have them.
    """

    dataset_hash: str
    kind: str
    z_dim: int
    datasets: Mapping[str, Mapping[str, Any]] = field(compare=False)

    def _fact(self, name: str) -> list[float]:
        return self.datasets[self.dataset_hash][f"{name}_within" if self.kind == "within" else name]

    @property
    def eigenvalues(self) -> list[float]:
        """Of the training images."""
        return self._fact("eigenvalues")

    def at(self, ts: Any) -> dict[str, np.ndarray]:
        """Held-out KL and SSE at some effective variances."""
        kl, sse = theory.held_out_curve(self.eigenvalues, self._fact("test_variances"), ts, self.z_dim)
        return {"kl": kl, "sse": sse}

    def spectrum(self, t: float) -> np.ndarray:
        """KL of each latent dimension on training images, descending, (k,): ½·ln(l_i/t) where l_i > t, else 0."""
        return theory.optimum(self.eigenvalues, t, self.z_dim).kl_per_dim

    def whole(self) -> dict[str, np.ndarray]:
        """Held-out KL (ascending) and SSE from the collapse to an effective variance of practically 0."""
        top = self.eigenvalues[0]
        return self.at(np.geomspace(top, 1e-9 * top, N_POINTS))


def curves(run: Mapping[str, Any] | pd.Series, datasets: Mapping[str, Mapping[str, Any]]) -> list[Curve]:
    """The closed forms of a run; none where its effective variance is not known, or it has a bug, which has its own."""
    bug = run.get("bug.kind")  # no text in runs that are older than this setting
    sound = not isinstance(bug, str) or bug == "none"
    return compared(run, datasets) if sound and math.isfinite(run.get("effective_x_var", math.nan)) else []


def compared(run: Mapping[str, Any] | pd.Series, datasets: Mapping[str, Mapping[str, Any]]) -> list[Curve]:
    """The closed forms that a run can be compared with at equal KL, whatever its loss.

    label_placement `decoder`, which has no simple form, lies between two. None where the facts of the data are not
    known.
    """
    if run["dataset_hash"] not in datasets:
        return []
    kinds = {"both": ["within"], "decoder": ["within", "all"]}.get(run["label_placement.kind"], ["all"])
    return [Curve(run["dataset_hash"], kind, int(run["z_dim"]), datasets) for kind in kinds]


def all_curves(runs: pd.DataFrame, datasets: Mapping[str, Mapping[str, Any]]) -> list[Curve]:
    """The closed forms of these runs, each once, by number of latents."""
    names = ["dataset_hash", "label_placement.kind", "z_dim", "effective_x_var", "bug.kind"]
    told = runs.reindex(columns=names).drop_duplicates()
    found = {curve for _, run in told.iterrows() for curve in curves(run, datasets)}
    return sorted(found, key=lambda curve: (curve.z_dim, curve.kind))
