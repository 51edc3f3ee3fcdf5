"""A Hydra callback that writes down what it is told, for tests/test_launchers.py."""

import json
import os
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Recorder(Callback):
    """Appends a line of JSON an event to the file that the environment variable RECORD names."""

    def _write(self, **event: Any) -> None:
        with open(os.environ["RECORD"], "a") as f:
            f.write(json.dumps(event) + "\n")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._write(event="start", seed=config.seed, number=config.hydra.job.num)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        failed = job_return.status is not None and job_return.status.name == "FAILED"
        result = None if failed else job_return.return_value["test_sse"]
        overrides = list(job_return.overrides or [])
        self._write(event="end", seed=config.seed, status=str(job_return.status), sse=result, overrides=overrides)
