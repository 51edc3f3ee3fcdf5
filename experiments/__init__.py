"""Sweeps around the model library: Hydra's launcher and sweeper, the run store, the collector, tables and figures."""
