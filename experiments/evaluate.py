"""Stub of the evaluation stage: reads metrics; the core branch has the real one."""

import json

DEFAULT_FAMILIES = ("reconstruction", "likelihood", "posterior", "generation", "similarity", "theory", "pictures")


def evaluate(folders, families=DEFAULT_FAMILIES, *, retry=False, progress=True):
    pass


def read_metrics(folder):
    values, failures = {}, {}
    for p in sorted((folder.path / "metrics").glob("*.json")):
        d = json.loads(p.read_text())
        if "failure" in d:
            failures[d["family"]] = d["failure"]["reason"]
        else:
            values |= d["values"]
    return values, failures
