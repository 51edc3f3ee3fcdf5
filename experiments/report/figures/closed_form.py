"""The closed form on held-out images: a linear VAE fitted to the training images, applied to the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.frame import Report
from vae import theory

N_POINTS = 600  # of a whole curve


@dataclass(frozen=True)
class Curve:
    """The closed form of some data for a number of latent dimensions.

    Attributes:
        kind: `within`, of the within-class covariance, or `all`, of the unconditional one.
    """

    dataset_hash: str
    kind: str
    z_dim: int

    def facts(self, report: Report) -> tuple[list[float], list[float]]:
        """Eigenvalues of the training images and the variances of held-out images along their directions."""
        data = report.datasets[self.dataset_hash]
        end = "_within" if self.kind == "within" else ""
        return data[f"eigenvalues{end}"], data[f"test_variances{end}"]

    def at(self, report: Report, ts: Any) -> dict[str, np.ndarray]:
        """Held-out KL and SSE at some effective variances."""
        kl, sse = theory.held_out_curve(*self.facts(report), ts, self.z_dim)
        return {"kl": kl, "sse": sse}

    def whole(self, report: Report) -> dict[str, np.ndarray]:
        """Held-out KL (ascending) and SSE from the collapse to an effective variance of practically 0."""
        top = self.facts(report)[0][0]
        return self.at(report, np.geomspace(top, 1e-9 * top, N_POINTS))


def curves(run: Mapping[str, Any] | pd.Series) -> list[Curve]:
    """The closed forms of a run; label_placement `decoder`, which has no simple form, lies between two.

    None where the effective variance is not known, because it could not be evaluated.
    """
    if not math.isfinite(run.get("effective_x_var", math.nan)):
        return []
    kinds = {"both": ["within"], "decoder": ["within", "all"]}.get(run["label_placement.kind"], ["all"])
    return [Curve(run["dataset_hash"], kind, int(run["z_dim"])) for kind in kinds]
