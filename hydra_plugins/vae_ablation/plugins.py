"""Hydra takes only classes that are defined below hydra_plugins."""

from experiments import launcher, search, sweeper


class StackedLauncher(launcher.StackedLauncher):
    """Hydra's name for experiments.launcher.StackedLauncher."""


class GridSweeper(sweeper.GridSweeper):
    """Hydra's name for experiments.sweeper.GridSweeper."""


class OptunaSweeper(search.OptunaSweeper):
    """Hydra's name for experiments.search.OptunaSweeper."""
