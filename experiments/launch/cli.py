"""The command line around Hydra: short forms before it, one clear line for a mistake after it.

A word picks an option and a number sets the value (`x_var=learned`, `x_var=0.1`), a bare word names an experiment
(`xvar`), a path is a folder of pictures or an .npz file (`dataset=path/to/pictures`). Hydra knows none of these, so
they are rewritten to what it knows; completion, --help and --cfg stay Hydra's own. Imports no torch.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import signal
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from experiments import stopping
from experiments.damage import damage_named
from experiments.settings import Settings, validate
from vae import config as vae_config
from vae.config import ConfigError
from vae.schema import allowed

CONF = Path(__file__).parent.parent.parent / "conf"
# Settings that hold the arguments of a class: what these are is not known before the class is.
OPEN = re.compile(r"optimizer\.(?!kind$)|model\.(en|de)coder\.|(dataset|likelihood|prior|objective)\.part\.")
VALUE_GROUPS = ("z_dim", "beta", "x_var", "label_repeat")  # groups whose main field is `value`
SEVERAL_VALUES = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")
USAGE, FAILURE = 2, 1  # exit statuses


class Stop(BaseException):
    """Leaves the program with one line. No Exception, because Hydra announces those with a line of its own."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class SweepFailed(Exception):
    """Some runs of a sweep have no result; the message is one line."""


def groups() -> list[str]:
    """The config groups, by their folders, without Hydra's own and the studies' claims, which no run reads."""
    return sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("hydra", "claims"))


@functools.cache
def known_settings() -> dict[str, Mapping[str, Any]]:
    """The metadata of all settings, by dotted name."""
    return {name: meta for name, _, meta, _ in vae_config.settings(Settings())}


def full_names(short: str) -> list[str]:
    """The settings whose last part is a short name, those first that every kind of their group uses."""
    known = known_settings()
    return sorted((name for name in known if name.endswith(f".{short}")), key=lambda name: bool(known[name]["kinds"]))


def options(group: str) -> list[str]:
    """The options of a config group, by their files."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def summary(group: str, option: str) -> str:
    """The first comment of an option's file; for an experiment without one its question or title."""
    text = (CONF / group / f"{option}.yaml").read_text()
    if comment := re.search(r"^#(?! *@) *(.+)", text, re.MULTILINE):
        return comment[1].strip()
    try:
        study = yaml.safe_load(text)["study"]
    except (yaml.YAMLError, LookupError, TypeError):
        return ""
    return next((str(study[key]) for key in ("question", "title") if isinstance(study, dict) and study.get(key)), "")


def help_table(*names: str) -> str:
    """The options of some groups with a line each, for conf/hydra/help/study.yaml; a `$` is one for string.Template."""
    docs = {key: meta["doc"] for key, meta in known_settings().items()}
    lines = []
    for group in names:
        lines += [f"{group}: {docs[f'{group}.kind']}"] if f"{group}.kind" in docs else []
        if group in ("optimizer", "bug"):  # docs/parts.md says what they are
            lines += textwrap.wrap(", ".join(options(group)), 118, initial_indent="  ", subsequent_indent="  ")
        else:
            lines += [f"  {option:20} {summary(group, option)}" for option in options(group)]
    return "\n".join(lines).replace("$", "$$")


@functools.cache
def register_schema() -> None:
    """Gives Hydra the typed schema that conf/config.yaml starts from, and the tables of its help."""
    ConfigStore.instance().store(name="schema", node=Settings)
    OmegaConf.register_new_resolver("help_table", help_table, replace=True)
    # For an experiment's points: a length that goes with the epochs, whatever these are.
    OmegaConf.register_new_resolver("times", lambda a, b: a * b, replace=True)


def typed(cfg: DictConfig) -> Settings:
    """The settings as dataclasses, checked.

    Raises:
        ConfigError: for a setting that cannot be used.
        OmegaConfBaseException: for one that does not exist or is of another type.
    """
    config = unchecked(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    checked(config)
    return config


def unchecked(own: DictConfig) -> Settings:
    """The settings as dataclasses.

    Args:
        own: without Hydra's own.

    Raises:
        OmegaConfBaseException: for one that does not exist or is of another type.
    """
    plain = OmegaConf.to_container(own, resolve=True)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), plain))
    assert isinstance(config, Settings)
    return config


def checked(config: Settings) -> None:
    """Checks everything that needs no data.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    validate(config)
    where = Path(config.output_dir).absolute()
    there = next(folder for folder in (where, *where.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ConfigError(f"output_dir={config.output_dir}: cannot write to {there}; allowed: a folder of yours")


class Folders(Callback):
    """Leaves the program before Hydra makes a folder of its own outside `output_dir`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        for key in ("hydra.run.dir", "hydra.sweep.dir") if config.output_dir else ():  # that it is empty is said later
            self._check(config, key)

    on_multirun_start = on_run_start

    def _check(self, config: DictConfig, key: str) -> None:
        try:
            root, folder = (Path(str(OmegaConf.select(config, name))).resolve() for name in ("output_dir", key))
            names = [OmegaConf.select(config, name) for name in ("hydra.sweep.subdir", "hydra.output_subdir")]
        except (OmegaConfBaseException, OSError, ValueError) as e:
            raise Stop(f"{key}: cannot be read ({' '.join(str(e).split())})", USAGE) from e
        inside = folder.is_relative_to(root) or (key == "hydra.run.dir" and folder == Path.cwd())
        if not inside or any({"..", "/"} & set(Path(str(name)).parts) for name in names):
            raise Stop(f"{key}={OmegaConf.select(config, key)}: leads out of {root}; allowed: a folder in it", USAGE)


def check(cfg: DictConfig) -> None:
    """Leaves the program if a setting cannot be used: for a single run, before torch is imported."""
    try:
        typed(cfg)
    except (ConfigError, OmegaConfBaseException) as e:
        raise Stop(explain(e, sys.argv[1:]), USAGE) from e


# --- Before Hydra: the short forms.


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_path(dataset: str) -> bool:
    """Whether a dataset is given by its path: with a slash, or of a file that exists and is not an option's name."""
    if "/" in dataset or dataset.startswith((".", "~")) or dataset.endswith(".npz"):
        return True
    return dataset not in options("dataset") and Path(dataset).exists()


def rewrite_override(text: str) -> list[str]:
    """One argument with its short form written out.

    Raises:
        ConfigError: for what Hydra would take in silence or refuse without saying why.
        OverrideParseException: for what cannot be read.
    """
    if re.fullmatch(r"[\w-]+", text):
        return [f"experiment={text}"]
    key, _, value = text.partition("=")
    if key.startswith("~") and not key.startswith("~hydra"):
        raise ConfigError(f"{text}: a setting cannot be removed; allowed: name=value")
    if OPEN.match(key):
        return [f"++{text}"]
    if key == "dataset" and any(map(_is_path, value.split(","))):
        paths = value.split(",")
        kinds = {"npz" if path.endswith(".npz") else "image_folder" for path in paths}
        if len(kinds) > 1 or not all(map(_is_path, paths)):
            raise ConfigError(f"{text}: data of several kinds; allowed: names, or folders, or .npz files")
        quoted = (path.replace("'", r"\'") for path in paths)
        return [f"dataset={kinds.pop()}", "dataset.root=" + ",".join(f"'{path}'" for path in quoted)]
    if key.lstrip("+") in groups():
        parsed = OverridesParser.create().parse_overrides([text])[0].value()
        if isinstance(parsed, ChoiceSweep):
            values = list(parsed.list)
        else:
            values = [parsed.start if isinstance(parsed, RangeSweep | IntervalSweep) else parsed]
        if key == "experiment" and (len(values) > 1 or not isinstance(parsed, str | None)):
            raise ConfigError(f"{text}: several experiments; allowed: one of {', '.join(options(key))}")
        numbers = [_is_number(v) for v in values]
        if key in VALUE_GROUPS and any(numbers):
            if all(numbers):
                return [f"{key}.value={value}"]
            raise ConfigError(f"{text}: words and numbers mixed; allowed: numbers, or {', '.join(options(key))}")
        words = [word for v in values for word in (v if isinstance(v, list) else [v])]
        if any(_is_number(w) or w is None or w == "" or isinstance(w, list) for w in words):
            raise ConfigError(f"{text}: not an option; allowed: {_allowed_options(key)}")
    elif key not in known_settings() and len(names := full_names(key)) == 1:
        return [f"{names[0]}={value}"]
    return [text]


def rewrite(argv: Sequence[str]) -> list[str]:
    """The command line with the short forms written out, flags first.

    Raises:
        ConfigError: for an unknown flag, a setting given twice, and what rewrite_override refuses.
        OverrideParseException: for what cannot be read.
    """
    parser = get_args_parser()
    parser.error = _refuse
    if "--" in argv:
        raise ConfigError("--: does nothing; allowed: name=value and the flags of python run.py --hydra-help")
    args = parser.parse_intermixed_args(list(argv))
    if args.package is not None and args.cfg is None:
        raise ConfigError(f"--package {args.package}: does nothing on its own; allowed: with --cfg")
    flags = [arg for arg in argv if arg not in args.overrides]
    if args.shell_completion:
        return list(argv)
    overrides = [new for text in args.overrides for new in rewrite_override(text)]
    keys = Counter(text.partition("=")[0].lstrip("+") for text in overrides)
    for text in overrides:
        key, _, value = text.partition("=")
        if keys[key.lstrip("+")] > 1:
            raise ConfigError(f"{key}={value}: {key} is given more than once; allowed: once")
    return flags + overrides


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; allowed: the flags of python run.py --hydra-help")


def complete_short_forms() -> None:
    """Adds what Hydra's tab completion does not know: experiments, choices of a setting, and the short forms before."""
    before, space, word = os.environ.get("COMP_LINE", "").rpartition(" ")
    rewritten = []
    for text in before.split(" "):
        try:
            rewritten += [text] if text.startswith("-") or not rewritten[1:] else rewrite_override(text)
        except (ConfigError, HydraException):
            rewritten.append(text)
    os.environ["COMP_LINE"] = " ".join(rewritten) + space + word
    name = word.partition("=")[0]
    known = [known_settings()[full] for full in (name, *full_names(name)) if full in known_settings()]
    choices = known[0]["choices"] if known else ()
    print(*options("experiment"), *(f"{name}={choice}" for choice in choices), sep="\n")


# --- After Hydra: one line for a mistake.


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _nearest_setting(key: str) -> str:
    full = {name: name for name in (*groups(), *known_settings())}
    short = {name.rpartition(".")[2] for name in full} - {"kind", "value"}
    full = {name: full_names(name)[0] for name in short if full_names(name)} | full
    close = difflib.get_close_matches(key, full, n=1)
    return f" (did you mean {full[close[0]]}?)" if close else ""


def _allowed_options(group: str, known: Sequence[str] = ()) -> str:
    more = {"dataset": ", or the path of a folder of pictures or an .npz file"}
    more |= dict.fromkeys(VALUE_GROUPS, ", or a number")
    return ", ".join(known or options(group)) + more.get(group, "")


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One line for a mistake in the settings, from what Hydra and OmegaConf say of it.

    Args:
        overrides: as given, to name the one at fault where the error does not hold its value.
    """
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OverrideParseException):
        reason = next(line for line in error.message.splitlines() if not line.startswith("Error parsing"))
        return (
            f"{error.override}: cannot be read ({reason}); allowed: name=value, with quotes around special characters"
        )
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        known = error.options or options(group)
        return f"{group}={option}: not an option{_nearest(option, known)}; allowed: {_allowed_options(group, known)}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    reason = str(cause or error).splitlines()[0]
    if cause is None or not cause.full_key:
        if m := SEVERAL_VALUES.match(reason):
            return f"{m[1]}: several values; allowed: one value; to train a run for each, add -m"
        return " ".join(line.strip() for line in str(error).splitlines()[:2])
    key, known = cause.full_key, known_settings()
    hint = re.search(r"To append to your config use \+(.*)", str(error))
    given = hint[1] if hint else next((o for o in overrides if o.lstrip("+").startswith(f"{key}=")), key).lstrip("+")
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and not key.startswith("hydra."):
        group = key.partition(".")[0] + "."
        names = [name for name in known if name.startswith(group)] or [*groups(), *(n for n in known if "." not in n)]
        return f"{given}: no such setting{_nearest_setting(key)}; allowed: {', '.join(names)}"
    if not isinstance(cause, ValidationError):
        return f"{given}: {reason}"
    value = "null" if cause.value is None else cause.value
    meta = known.get(re.sub(r"\[\d+\]$", "", key))
    return f"{key}={value}: " + (f"wrong type; allowed: {allowed(meta)}" if meta else reason)


def _cause(error: BaseException, argv: Sequence[str]) -> BaseException:
    """What keeps an experiment from being composed, where Hydra only says that several values need a sweep."""
    if not SEVERAL_VALUES.search(str(error)):
        return error
    args = get_args_parser().parse_intermixed_args(list(argv))
    more = [f"hydra.searchpath=[file://{Path(args.config_dir).absolute()}]"] if args.config_dir else []
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            loader.load_configuration("config", [*args.overrides, *more], RunMode.MULTIRUN)
    except Exception as hidden:  # Hydra raises anything for settings that it cannot use
        return hidden
    return error


def _line_and_status(error: BaseException, overrides: Sequence[str]) -> tuple[str, int] | None:
    """What to say of an error and how to leave; None for a defect, which keeps its traceback.

    Hydra raises anything for settings that it cannot use: until the settings are checked, no error is a defect.
    """
    if isinstance(error, Stop):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return stopping.LINE, stopping.STATUS
    if isinstance(error, SweepFailed):
        return str(error), FAILURE
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split()), USAGE
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
        return explain(error, overrides), USAGE
    if _begun:
        return None
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if isinstance(error, ValueError) and f"{os.sep}hydra{os.sep}" in raised_in:  # flags that do not go together
        return " ".join(str(error).split()), USAGE
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{' '.join(overrides)}: cannot be read ({reason}); HYDRA_FULL_ERROR=1 tells more", USAGE


_begun: list[ExitStack] = []  # what holds since the settings are checked; empty before


def begin() -> None:
    """The settings are checked: now an error is a defect, and Ctrl-C lets what is being written be finished."""
    held = ExitStack()
    held.enter_context(stopping.after_writing("run.py"))
    _begun.append(held)


def run(entry: Callable[[], None]) -> None:
    """Runs Hydra's entry point with the short forms written out, and turns every mistake into one line and a status."""
    argv, full_error = sys.argv[1:], os.environ.get("HYDRA_FULL_ERROR")
    register_schema()
    try:
        sys.argv[1:] = rewrite(argv)
        if "query=" in " ".join(argv) and {"-sc", "--shell-completion"} & set(argv):
            complete_short_forms()
        # Hydra would print several lines and leave; this makes it raise, and the line is ours.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        with damage_named("run.py"):
            entry()
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except (Exception, KeyboardInterrupt, Stop) as error:
        verdict = _line_and_status(_cause(error, sys.argv[1:]), sys.argv[1:])
        if verdict is None:
            raise
        if full_error == "1":
            traceback.print_exc()
        said = "".join(c if c.isprintable() else "?" for c in " ".join(verdict[0].split()))  # it may quote anything
        print(f"run.py: {said}", file=sys.stderr)
        sys.exit(verdict[1])
    finally:
        while _begun:
            _begun.pop().close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv[1:] = argv
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
