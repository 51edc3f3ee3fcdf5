"""Which runs are trained together."""

import pytest

from experiments import stacking
from experiments.plan import plan
from experiments.stacking import key, phases, stacks
from tests.conftest import Configs


def test_stacks_share_shape_and_length_and_are_of_even_size(configs: Configs):
    changes = [{"seed": s, "z_dim__value": z} for z in (3, 4) for s in range(5)]
    sizes = [[r.config.z_dim.value for r in stack] for stack in stacks(plan(configs(*changes, trainer__stack_size=4)))]
    assert sizes == [[3, 3, 3], [3, 3], [4, 4, 4], [4, 4]]
    lengths = plan(configs({"trainer__epochs": 2}, {"trainer__epochs": 3}, {"seed": 1}, trainer__stack_size=4))
    assert [len(s) for s in stacks(lengths)] == [2, 1]


def test_on_a_cpu_each_run_is_a_program_of_its_own(configs: Configs):
    assert [len(s) for s in stacks(plan(configs(*({"seed": s} for s in range(3)))))] == [1, 1, 1]


def test_only_seed_beta_and_the_value_of_x_var_differ_within_a_stack(configs: Configs):
    carried = [
        {},
        {"seed": 1},
        {"x_var__value": 0.5},
        {"beta__value": 2.0},
        {"beta__kind": "warmup", "beta__epochs": 1.0},
    ]
    assert len({key(run) for run in plan(configs(*carried))}) == 1
    others = [
        {},
        {"optimizer": {"kind": "SGD"}},
        {"optimizer": {"kind": "Adam", "eps": 1e-6}},
        {"trainer__lr": 0.01},
        {"trainer__clip": 1.0},
        {"model__activation": "tanh"},
        {"x_var__kind": "learned"},
        {"label_placement__kind": "none"},
        {"objective__kind": "per_dim"},
        {"likelihood__kind": "laplace"},
    ]
    assert len({key(run) for run in plan(configs(*others))}) == len(others)


def test_a_setting_that_is_added_keeps_runs_apart(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    runs = plan(configs({"seed": 0}, {"seed": 1}))
    known = stacking.result_settings
    monkeypatch.setattr(stacking, "result_settings", lambda config: known(config) | {"new.setting": config.seed})
    assert len({key(run) for run in runs}) == 2


def test_products_train_side_by_side_and_convolutions_with_all_threads(configs: Configs):
    conv = {"model__kind": "conv", "model__hidden": None, "model__channels": [4]}
    runs = plan(configs(*({"seed": s} for s in range(3)), {"seed": 9, **conv}))
    assert [(workers, len(together)) for workers, together in phases(runs, threads=2)] == [(2, 3), (1, 1)]
    assert [(workers, len(together)) for workers, together in phases(runs[:1], threads=4)] == [(1, 1)]
    assert list(phases([], threads=4)) == []
