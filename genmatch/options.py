"""Options of commands from files and words: TOML, `--set`, and the settings of training, each with what it means.

default  <  TOML file  <  --set key=value  <  --option value
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from genmatch.errors import GenmatchError, checked_seed, unknown
from genmatch.settings import LR_SCHEDULES, OBJECTIVES, PRECISIONS, SHARDINGS, RunSettings

_META = "genmatch.options"
_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)

_TRAINING: tuple[tuple[str, type, str], ...] = (
    ("warmup", int, "Steps over which the learning rate rises."),
    ("lr_schedule", str, f"After that: {' or '.join(LR_SCHEDULES)}."),
    ("weight_decay", float, "Weight decay of AdamW."),
    ("grad_clip", float, "Largest norm of the gradient."),
    ("ema", float, "Decay of the average of the weights; 0 switches averaging off."),
    ("objective", str, f"What is minimised: {', '.join(OBJECTIVES)}, or recommended for what the process recommends."),
    ("accumulate", int, "Parts that each process cuts its rows of a batch into: the same numbers in less memory."),
    ("precision", str, f"Of the network: {' or '.join(PRECISIONS)}; times and losses stay in float32 or better."),
    ("sharding", str, f"What is cut up among several processes, {' or '.join(SHARDINGS)}: with full, each holds a part of the network."),
    ("recompute", bool, "Compute the blocks of the network again for the gradient instead of keeping what they computed: less memory."),
    ("compile", bool, "Let torch.compile make the network faster."),
    ("explode", float, "Stop when the loss is that many times its usual size."),
    ("timeout", float, "Seconds to wait for another process before giving up."),
)


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Makes a TOML file's values the defaults of the command's options; the table of the command's name, if there is one."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        hint = "a process is named by --process, a data set by --data"
        raise GenmatchError(f"`{path}` cannot be read as TOML: there is no such file; expected a file of settings ({hint}).") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise GenmatchError(f"`{path}` cannot be read as TOML: {error}.") from error
    table = values.get(str(ctx.info_name), {})
    if not isinstance(table, dict):
        raise GenmatchError(f"`{path}`: `{ctx.info_name}` must be a table, [{ctx.info_name}], got {table!r}.")
    _take(ctx, "file", {**{k: v for k, v in values.items() if not isinstance(v, dict)}, **table}, f"`{path}`: ")
    return path


def read_words(ctx: click.Context, _: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Makes each `key=value`, or `command.key=value`, the default of an option."""
    values = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise GenmatchError(f"`--set` needs key=value, got `{word}`; e.g. --set {ctx.info_name}.lr=1e-3.")
        table, dot, name = key.strip().rpartition(".")
        if dot and table != ctx.info_name:
            raise GenmatchError(f"`--set {word}` is of the table `{table}`, and this is `genmatch {ctx.info_name}`.")
        values[name] = _value(text.strip())
    _take(ctx, "set", values, "--set: ")
    return words


def print_config(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Prints every setting with what it means as a TOML file, and ends."""
    if not wanted:
        return
    lines = [f"[{ctx.info_name}]"]
    for option in _options(ctx):
        value = ctx.params.get(str(option.name), option.get_default(ctx))
        known = isinstance(value, str | int | float | list | tuple | Path)  # click marks what has no default by a value of its own
        lines += [f"# {option.help}", f"{option.name} = {toml(value)}" if known else f'# {option.name} = "..."']
    click.echo("\n".join(lines))
    ctx.exit()


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of one training budget, and where settings come from."""
    for option in reversed(
        [
            click.option(
                "--data",
                default=RunSettings.data,
                show_default=True,
                help="Data set: a name from `genmatch list`, text:FILE, prepared:FOLDER or package.module:Name.",
            ),
            click.option("--steps", type=int, default=RunSettings.steps, show_default=True, help="Optimiser steps."),
            click.option("--batch-size", type=int, default=RunSettings.batch_size, show_default=True, help="Data points a step."),
            click.option("--lr", type=float, default=RunSettings.lr, show_default=True, help="Learning rate."),
            click.option("--network", default=RunSettings.network, show_default=True, help="mlp, transformer, or package.module:Name."),
            click.option("--width", type=int, default=RunSettings.width, show_default=True, help="Width of the network."),
            click.option("--depth", type=int, default=RunSettings.depth, show_default=True, help="Depth of the network."),
            click.option(
                "--condition",
                is_flag=True,
                default=RunSettings.condition,
                help="Tell the network the label of each data point; samples are then drawn by class.",
            ),
            seed_option("Of weights, data order, noise and samples.", RunSettings.seed),
            click.option("--config", type=click.Path(path_type=Path), is_eager=True, callback=read_config, help="TOML file with these options as keys."),
            click.option("--set", "words", multiple=True, is_eager=True, callback=read_words, help="key=value, over the file; repeat for more."),
            click.option("--print-config", is_flag=True, expose_value=False, callback=print_config, help="Print all settings with their meaning as TOML."),
        ]
    ):
        command = option(command)
    return command


def seed_option(text: str, default: int = 0) -> Callable[[_Command], _Command]:
    """The option `--seed`, refused before any work if it is not an integer of 64 bits.

    Args:
        text: what it is the seed of.
        default: of it.
    """
    return click.option("--seed", type=int, default=default, show_default=True, callback=lambda _ctx, _param, value: checked_seed(value), help=text)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of training that a comparison leaves at their defaults."""
    for name, kind, text in reversed(_TRAINING):
        default = getattr(RunSettings, name)
        words = name.replace("_", "-")
        # click makes a pair of flags of what is yes or no.
        spelled = f"--{words}/--no-{words}" if kind is bool else f"--{words}"
        command = click.option(spelled, type=kind, default=default, show_default=True, help=text)(command)
    return command


def write_config(settings: Mapping[str, Any], table: str) -> bytes:
    """Settings as a TOML file, which the command reads again."""
    return "\n".join([f"[{table}]", *(f"{name} = {toml(value)}" for name, value in settings.items()), ""]).encode()


def toml(value: Any) -> str:
    """A value as TOML.

    Example:
        >>> toml(1e-3), toml("mask"), toml((1, 2))
        ('0.001', '"mask"', '[1, 2]')
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value))


def _value(text: str) -> Any:
    """A word as TOML reads it, or the word itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _options(ctx: click.Context) -> list[click.Option]:
    """Those that are settings: not the ones that are read before others."""
    return [option for option in ctx.command.params if isinstance(option, click.Option) and not option.is_eager and option.name != "print_config"]


def _take(ctx: click.Context, source: str, values: Mapping[str, Any], where: str) -> None:
    known = {str(option.name): option for option in _options(ctx)}
    named = {name.replace("-", "_"): value for name, value in values.items()}
    if wrong := [name for name in named if name not in known]:
        raise GenmatchError(f"{where}{unknown('setting', wrong[0], known)}")
    for name, value in named.items():
        _check(known[name], value, where)
    sources: dict[str, dict[str, Any]] = ctx.meta.setdefault(f"{_META}.{ctx.info_name}", {})
    sources[source] = sources.get(source, {}) | named
    ctx.default_map = {**sources.get("file", {}), **sources.get("set", {})}


def _check(option: click.Option, value: Any, where: str) -> None:
    """Refuses what click would bend to fit: 2.5 steps, or yes as a number."""
    kinds: dict[str, tuple[Any, str]] = {
        "integer": (int, "an integer"),
        "float": ((int, float), "a number"),
        "text": (str, "a string"),
        "boolean": (bool, "true or false"),
        "path": (str, "a string"),
    }
    kind, words = kinds.get(option.type.name, (object, "something"))
    for single in value if option.multiple and isinstance(value, list) else [value]:
        if not isinstance(single, kind) or (isinstance(single, bool) and option.type.name in ("integer", "float")):
            raise GenmatchError(f"{where}`{option.name}` must be {words}, got {single!r}.")
