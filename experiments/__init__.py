"""Sweeps around the model library: Hydra's launcher and sweeper, the run store, the collector, tables and figures."""

import os

# Read by OpenMP when torch is first imported. Its threads would otherwise spin while they wait for one another: with
# one other busy process on two cores that makes training several times slower, and alone it gains nothing measurable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
