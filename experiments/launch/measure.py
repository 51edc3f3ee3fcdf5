"""The command that tests a trained model on other data:

    python -m experiments.launch.measure RUN dataset=... [dataset.root=...]

It prints the errors and likelihoods on held-out images. Nothing is written into the run's folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments import plan
from experiments.find import find
from experiments.launch import cli
from experiments.report.tables import STUDY_FIGURES
from experiments.settings import read_settings
from experiments.store import RunFolder
from vae.config import ConfigError, Dataset
from vae.data import ImageData, facts
from vae.metrics import METRICS, Subject, compute
from vae.trained import load_run

FAMILIES = ("reconstruction", "likelihood")


def dataset_of(overrides: Sequence[str]) -> Dataset:
    """The dataset that overrides name, as on the command line of run.py.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: for what cannot be used.
    """
    for text in overrides:
        if not text.startswith("dataset"):
            raise ConfigError(f"{text}: the run has its own settings; allowed: those of dataset")
    cli.register_schema()
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return cli.typed(compose("config", cli.rewrite(overrides))).dataset


def measure(folder: RunFolder, dataset: Dataset) -> tuple[ImageData, dict[str, float]]:
    """The data, and the metrics of a trained model on their held-out images, by column.

    Raises:
        ConfigError: if the data cannot be read or do not fit the model.
        FileNotFoundError, ValueError: if the run has no model, or a damaged one.
    """
    model = load_run(folder.path)
    shape = model.arch.image_shape
    if dataset.kind == "image_folder":
        dataset = dataclasses.replace(dataset, size=shape[1], channels=shape[0])
    data = plan.load_data(dataset)
    if data.image_shape != shape:
        raise ConfigError(f"dataset={data.name}: its images are {data.image_shape}; allowed: {shape}, as in training")
    if model.needs_label and data.classes != model.classes:
        raise ConfigError(f"dataset={data.name}: it has other classes; allowed: {', '.join(model.classes)}")
    cache = folder.path.parent.parent / ".cache"
    subject = Subject(model, data, read_settings(folder.path), facts(data, cache), cache)
    found = {name: value for family in FAMILIES for name, value in compute(family, subject).values.items()}
    shown = {k: v for k, v in found.items() if k.startswith("test_") and k.removeprefix("test_") not in STUDY_FIGURES}
    return data, {k: v for k, v in shown.items() if isinstance(v, int | float)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch.measure", description="Tests a trained model on other data. Trains nothing."
    )
    parser.add_argument("run", help="name, fingerprint, unique part of a name, path, or best:REPORT")
    parser.add_argument("dataset", nargs="*", help="dataset=... and its settings (default: the data of the run)")
    parser.add_argument("--output-dir", default="outputs", help="folder that holds runs/ (default: outputs)")
    arguments = parser.parse_args(argv)
    try:
        folder = find(arguments.run, arguments.output_dir)
        dataset = dataset_of(arguments.dataset) if arguments.dataset else read_settings(folder.path).dataset
        data, found = measure(folder, dataset)
    except (ValueError, FileNotFoundError, HydraException, OmegaConfBaseException) as e:
        print(f"measure: {cli.explain(e, arguments.dataset)}", file=sys.stderr)
        return 2
    print(f"{folder.name} on {len(data.test_x)} held-out images of {data.name} ({data.source})")
    for name, value in found.items():
        print(f"{METRICS[name].heading}: {value:.6g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
