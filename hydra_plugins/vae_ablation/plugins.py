"""Hydra takes only classes that are defined below hydra_plugins."""

from experiments.launch import grid, launcher, search


class StackedLauncher(launcher.StackedLauncher):
    """Hydra's name for experiments.launch.launcher.StackedLauncher."""


class GridSweeper(grid.GridSweeper):
    """Hydra's name for experiments.launch.grid.GridSweeper."""


class OptunaSweeper(search.OptunaSweeper):
    """Hydra's name for experiments.launch.search.OptunaSweeper."""
