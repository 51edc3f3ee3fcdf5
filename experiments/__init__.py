"""Sweeps around the model library: Hydra's launcher and sweeper, the run store, the collector, tables and figures."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.find import best, load_run
    from experiments.reading import table

__all__ = ["best", "load_run", "table"]

# Read by OpenMP when torch is first imported. Its threads would otherwise spin while they wait for one another: with
# one other busy process on two cores that makes training several times slower, and alone it gains nothing measurable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers without waiting for pandas.
    if name in ("best", "load_run"):
        from experiments import find

        return getattr(find, name)
    if name == "table":
        from experiments.reading import table

        return table
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]  # for help() and completion
