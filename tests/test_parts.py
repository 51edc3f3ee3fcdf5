"""Parts of your own: finding, calling and fingerprinting them, and what is said about those that do not work."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vae.config import ConfigError
from vae.parts import locate, make, sources, targets

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module that can be imported until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def module(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    yield module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


SOURCE = """
VALUE = 3

class Encoder:
    def __init__(self, image_shape, width=8, *, depth):
        self.given = image_shape, width, depth

def function(terms, scale=1.0):
    return terms, scale

def fails(image_shape):
    raise TypeError("the part's own mistake")
"""


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_target_is_the_object_of_its_module(write: Write):
    write("own_found", SOURCE)
    found = locate("own_found.Encoder")
    assert found is sys.modules["own_found"].Encoder
    assert locate("own_found.function")(1, 2) == (1, 2)
    assert locate("collections.abc.Mapping") is __import__("collections").abc.Mapping


def test_a_target_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_here.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    assert locate("own_here.function")(1) == (1, 1.0)
    del sys.modules["own_here"]


def test_a_target_that_cannot_be_found_is_one_line_that_says_why(write: Write):
    write("own_errors", SOURCE)
    write("own_broken", "import own_errors\nraise ValueError('first line\\nsecond line')\n")
    write("own_syntax", "def f(:\n")
    write("own_imports", "import a_module_that_is_not_there\n")
    assert message(lambda: locate("Encoder")) == "_target_=Encoder: names no module; allowed: module.Class"
    assert message(lambda: locate("")) == "_target_=: names no module; allowed: module.Class"
    assert message(lambda: locate("own_nowhere.Encoder")) == (
        "_target_=own_nowhere.Encoder: cannot import own_nowhere (ModuleNotFoundError: No module named 'own_nowhere')"
    )
    assert message(lambda: locate("own_errors.Decoder")) == (
        "_target_=own_errors.Decoder: the module own_errors has no Decoder"
    )
    value = {"_target_": "own_errors.VALUE"}
    assert message(lambda: make("part", value)) == "part: own_errors.VALUE is not a class or function"
    assert message(lambda: locate("own_broken.Encoder")) == (
        "_target_=own_broken.Encoder: cannot import own_broken (ValueError: first line second line)"
    )
    assert message(lambda: locate("own_syntax.f")).startswith(
        "_target_=own_syntax.f: cannot import own_syntax (SyntaxError: "
    )
    assert "No module named 'a_module_that_is_not_there'" in message(lambda: locate("own_imports.f"))
    assert message(lambda: locate(".own_errors.Encoder")).startswith("_target_=.own_errors.Encoder: cannot import ")


def test_an_attribute_error_inside_a_module_is_not_taken_for_a_missing_class(write: Write):
    write("own_attribute", "import math\nmath.cube\n\nclass Encoder: pass\n")
    assert message(lambda: locate("own_attribute.Encoder")).startswith(
        "_target_=own_attribute.Encoder: cannot import own_attribute (AttributeError: "
    )


def test_a_part_gets_its_own_arguments_and_those_of_the_program(write: Write):
    write("own_made", SOURCE)
    spec = {"_target_": "own_made.Encoder", "depth": 2}
    assert make("model.encoder", spec, image_shape=(1, 8, 8)).given == ((1, 8, 8), 8, 2)
    assert make("model.encoder", {**spec, "width": 64}, image_shape=(1, 8, 8)).given == ((1, 8, 8), 64, 2)
    assert spec == {"_target_": "own_made.Encoder", "depth": 2}


def test_arguments_that_a_part_does_not_take_are_one_line(write: Write):
    write("own_arguments", SOURCE)

    def complaint(own: dict[str, Any], **given: Any) -> str:
        return message(lambda: make("model.encoder", {"_target_": "own_arguments.Encoder", **own}, **given))

    missing = complaint({"width": 3}, image_shape=1)
    assert missing.startswith("model.encoder: own_arguments.Encoder does not take the arguments image_shape, width (")
    assert "'depth'" in missing
    unknown = complaint({"depth": 3, "widht": 3}, image_shape=1)
    assert "image_shape, depth, widht (" in unknown
    assert "'widht'" in unknown
    assert complaint({"depth": 3, "image_shape": 5}, image_shape=1) == (
        "model.encoder.image_shape=5: the program sets this argument of own_arguments.Encoder itself"
    )
    assert "'label_dim'" in complaint({"depth": 3}, image_shape=1, label_dim=0)
    assert message(lambda: make("prior.part", {"_target_": "nowhere_at_all.Prior"}, z_dim=2)).startswith(
        "_target_=nowhere_at_all.Prior: cannot import nowhere_at_all "
    )


def test_a_built_in_function_without_a_signature_is_called_as_well():
    assert make("model.encoder", {"_target_": "builtins.dict", "width": 64}, z_dim=2) == {"width": 64, "z_dim": 2}


def test_what_a_part_itself_raises_is_not_hidden(write: Write):
    write("own_raises", SOURCE)
    with pytest.raises(TypeError, match="the part's own mistake"):
        make("model.encoder", {"_target_": "own_raises.fails"}, image_shape=1)


def test_targets_are_found_at_every_depth():
    setting = {
        "kind": "custom",
        "part": {"_target_": "a.B", "inner": {"_target_": "c.D", "deeper": {"x": {"_target_": "e.f"}}}, "width": 3},
        "hidden": [400],
    }
    assert list(targets(setting)) == ["a.B", "c.D", "e.f"]
    assert list(targets({"kind": "mlp", "hidden": [400], "part": None})) == []
    assert list(targets(None)) == []


def test_sources_are_the_hashes_of_the_files_as_they_are_now(write: Write):
    one, two = write("own_one", SOURCE), write("own_two", SOURCE + "\n# another file\n")
    setting = {"x": {"_target_": "own_one.Encoder", "inner": {"_target_": "own_two.function"}}}
    before = sources(setting)
    assert before == {
        "own_one.Encoder": hashlib.sha256(one.read_bytes()).hexdigest(),
        "own_two.function": hashlib.sha256(two.read_bytes()).hexdigest(),
    }
    two.write_text(SOURCE + "\n# changed\n")
    after = sources(setting)
    assert after["own_one.Encoder"] == before["own_one.Encoder"]
    assert after["own_two.function"] == hashlib.sha256(two.read_bytes()).hexdigest()
    assert after["own_two.function"] != before["own_two.function"]
    assert sources({"hidden": [400]}) == {}


def test_the_source_of_a_decorated_function_is_its_own_file(write: Write):
    decorated = "import torch\n\n@torch.no_grad()\ndef loss(terms):\n    return terms\n"
    path = write("own_decorated", decorated)
    assert sources({"_target_": "own_decorated.loss"}) == {
        "own_decorated.loss": hashlib.sha256(path.read_bytes()).hexdigest()
    }


def test_a_built_in_class_has_no_source():
    assert sources({"_target_": "builtins.dict"}) == {"builtins.dict": ""}
