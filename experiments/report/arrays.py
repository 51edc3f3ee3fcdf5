"""The arrays that families of metrics store beside their numbers, as reports read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.store import RunFolder

Arrays = dict[str, np.ndarray]


def arrays(run: Mapping[str, Any] | pd.Series, family: str = "pictures") -> Arrays:
    """The arrays of a run's npz file of a family; none if they are missing or damaged. Executes nothing."""
    folder = RunFolder(Path(run["path"]))
    if not folder.sound(f"{family}.npz", f"metrics/{family}.json"):
        return {}
    with np.load(folder.path / f"{family}.npz", allow_pickle=False) as stored:
        return dict(stored)
