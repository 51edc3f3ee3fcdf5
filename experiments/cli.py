"""The command line around Hydra: short forms before it, one clear line for a mistake after it.

A word picks an option and a number sets the value (`x_var=learned`, `x_var=0.1`), a bare word names an experiment
(`xvar`), a path is a folder of pictures (`dataset=path/to/pictures`). Hydra knows none of these, so they are rewritten
to what it knows; completion, --help and --cfg stay Hydra's own. Imports no torch.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae import config as vae_config
from vae.config import Config, ConfigError

CONF = Path(__file__).parent.parent / "conf"
VALUE_GROUPS = ("z_dim", "beta", "x_var", "label_repeat")  # groups whose main field is `value`
NUMBER = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|nan|inf)", re.IGNORECASE)
USAGE, FAILURE, INTERRUPTED = 2, 1, 130  # exit statuses


class Stop(BaseException):
    """Leaves the program with one line. No Exception, because Hydra announces those with a line of its own."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class SweepFailed(Exception):
    """Some runs of a sweep have no result; the message is one line."""


def options(group: str) -> list[str]:
    """The options of a config group, by their files."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    return sorted(p.name for p in CONF.iterdir() if p.is_dir())


def register_schema() -> None:
    """Gives Hydra the typed schema that conf/config.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=Config)


def typed(cfg: DictConfig) -> Config:
    """The settings as dataclasses, checked.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    own = {key: value for key, value in cfg.items() if key != "hydra"}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), own))
    assert isinstance(config, Config)
    vae_config.validate(config)
    return config


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _rewrite_one(override: str) -> str:
    if "=" not in override:
        if override in options("experiment"):
            return f"experiment={override}"
        if override.startswith(("~", "+")):
            return override
        raise ConfigError(
            f"{override}: no such experiment{_nearest(override, options('experiment'))}; "
            f"allowed: one of {', '.join(options('experiment'))}, or a setting as name=value"
        )
    key, value = override.split("=", 1)
    if key in VALUE_GROUPS:
        parts = value.split(",")
        numbers = [bool(NUMBER.fullmatch(part.strip())) for part in parts]
        if all(numbers) or re.match(r"(choice|range|interval)\(\s*[-+.\d]", value):
            return f"{key}.value={value}"
        if any(numbers):
            raise ConfigError(
                f"{override}: words and numbers mixed; allowed: numbers, or one of {', '.join(options(key))}"
            )
    if key == "dataset" and ("/" in value or value.startswith((".", "~"))):
        return f"dataset=image_folder\0dataset.root={os.path.expanduser(value)}"
    if key in groups():
        for part in value.split(","):
            if re.fullmatch(r"[\w.+-]*", part) and part not in options(key):
                hint = _nearest(part, options(key))
                more = " or a number" if key in VALUE_GROUPS else ""
                raise ConfigError(f"{key}={part}: not an option{hint}; allowed: one of {', '.join(options(key))}{more}")
    return override


def rewrite(argv: Sequence[str]) -> list[str]:
    """The command line with the short forms written out.

    Raises:
        ConfigError: for a bare word that is no experiment, an option that its group lacks.
    """
    overrides = get_args_parser().parse_args(list(argv)).overrides
    if "--shell-completion" in argv or "-sc" in argv:
        return list(argv)
    rewritten = {o: _rewrite_one(o).split("\0") for o in overrides}
    # Overrides are the arguments that argparse did not take for flags; every other argument stays as it is.
    return [new for arg in argv for new in rewritten.get(arg, [arg])]


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One line for a mistake in the settings, from what Hydra and OmegaConf say of it."""
    cause: BaseException | None = error
    texts = []
    while cause is not None:
        texts.append(" ".join(str(cause).split()))
        cause = cause.__cause__
    text = " ".join(texts)
    known = {name: (meta, value) for name, value, meta, _ in vae_config.settings(Config())}

    def given(key: str) -> str:
        return next((o.lstrip("+~") for o in overrides if o.lstrip("+~").split("=")[0] == key), key)

    if m := re.search(r"Ambiguous value for argument '([^']*)'", text):
        return f"{m[1]}: several values are a sweep; add -m (--multirun) to run it, or write key=[a,b] for a list"
    if m := re.search(r"Could not override '([^']*)'|Key '([^']*)' is not in struct|Key '([^']*)' not in", text):
        full = re.search(r"full_key: (\S+)", text)
        key = m[1] or (full[1] if full else m[2] or m[3])
        if key in known and (v := re.search(r"Value '(.*?)' of type", text)):
            meta, _ = known[key]
            return f"{key}={v[1]}: wrong type; allowed: {vae_config.allowed(meta)}"
        names = [*known, *groups()]
        return f"{given(key)}: no setting {key}{_nearest(key, names)}; allowed: the settings of python run.py --help"
    if m := re.search(r"Value '(.*?)' of type '\w+' (?:could not be converted to|is not)", text):
        full = re.search(r"full_key: (\S+)", text)
        key = full[1] if full else "?"
        key = re.sub(r"\[\d+\]$", "", key)
        meta = known[key][0] if key in known else None
        return f"{key}={m[1]}: wrong type; allowed: {vae_config.allowed(meta) if meta else 'see --help'}"
    if m := re.search(r"Could not find '(?:[\w/]*/)?(\w+)/([^']*)'", text):
        return f"{m[1]}={m[2]}: not an option{_nearest(m[2], options(m[1]))}; allowed: {', '.join(options(m[1]))}"
    if m := re.search(r"Could not override '(\w+)'.*No match in the defaults list", text):
        return f"{given(m[1])}: no config group {m[1]}{_nearest(m[1], groups())}; allowed: {', '.join(groups())}"
    full = re.search(r"full_key: (\S+)", text)
    text = re.sub(r"\s*(full_key|object_type|reference_type): ?\S*", "", text)
    return f"{full[1]}: {text}" if full else text


def run(entry: Callable[[], None]) -> None:
    """Runs Hydra's entry point with the short forms written out, and turns every mistake into one line and a status."""
    register_schema()
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        sys.argv[1:] = rewrite(sys.argv[1:])
        # Hydra would print several lines and leave; this makes it raise, and the line is ours.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        entry()
    except Stop as e:
        _leave(str(e), e.status, full_error)
    except ConfigError as e:
        _leave(str(e), USAGE, full_error)
    except SweepFailed as e:
        _leave(str(e), FAILURE, full_error)
    except (HydraException, OmegaConfBaseException) as e:
        _leave(explain(e, sys.argv[1:]), USAGE, full_error)
    except ValueError as e:
        # Hydra's complaints about flags that do not go together; anything else is a defect and keeps its traceback.
        last = traceback.extract_tb(e.__traceback__)[-1]
        if f"{os.sep}hydra{os.sep}" not in last.filename:
            raise
        _leave(" ".join(str(e).split()), USAGE, full_error)
    except KeyboardInterrupt:
        _leave("stopped; the same command goes on from here", INTERRUPTED, full_error)


def _leave(line: str, status: int, full_error: bool) -> None:
    if full_error:
        traceback.print_exc()
    print(f"run.py: {line}", file=sys.stderr)
    sys.exit(status)
