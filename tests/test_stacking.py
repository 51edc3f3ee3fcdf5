"""Which runs are trained together."""

from experiments.plan import plan
from experiments.stacking import stacks, workers_for
from tests.conftest import Configs


def test_stacks_share_shape_and_length_and_are_of_even_size(configs: Configs):
    changes = [{"seed": s, "z_dim__value": z} for z in (3, 4) for s in range(5)]
    sizes = [[r.config.z_dim.value for r in stack] for stack in stacks(plan(configs(*changes, trainer__stack_size=4)))]
    assert sizes == [[3, 3, 3], [3, 3], [4, 4, 4], [4, 4]]
    lengths = plan(configs({"trainer__epochs": 2}, {"trainer__epochs": 3}, {"trainer__lr": 0.01}))
    assert [len(s) for s in stacks(lengths)] == [2, 1]


def test_workers_share_the_runs_and_convolutions_take_all_threads(configs: Configs):
    runs = plan(configs(*({"seed": s} for s in range(9))))
    assert [workers_for(runs[:n], threads=4) for n in (0, 1, 3, 9)] == [1, 1, 3, 4]
    assert [len(s) for s in stacks(runs, workers=2)] == [3, 3, 3], "half of a worker's share or less"
    conv = {"model__kind": "conv", "model__hidden": None, "model__channels": [4]}
    assert workers_for(plan(configs(conv, {"seed": 1})), threads=4) == 1
