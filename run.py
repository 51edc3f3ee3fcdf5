"""The one entry point: trains one run, or with -m or the name of an experiment a whole sweep."""

from experiments import stopping

if __name__ == "__main__":
    stopping.at_once("run.py")  # before the imports, which take a while

import hydra
from omegaconf import DictConfig

from experiments.launch import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg: DictConfig) -> dict:
    cli.check(cfg)
    from experiments.launch.job import train_job  # imports torch, which --help and a bad setting need not wait for

    return train_job(cfg)


if __name__ == "__main__":
    cli.run(train)
