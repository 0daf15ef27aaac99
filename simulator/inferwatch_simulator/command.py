"""`inferwatch simulate` and `inferwatch demo`: their flags, and what they start."""

import argparse
import re
import sys

import msgspec

from inferwatch.config import ConfigError, reworded
from inferwatch.flags import EXIT_OK, EXIT_RUNTIME, positive
from inferwatch.yaml_file import read_file
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.scenarios import SCENARIOS


def configure_simulate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `simulate`: each setting has one."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any setting of the simulator")
    for name, default in msgspec.to_builtins(SimulatorConfig()).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, dest=name, action="store_true", default=None, help="as vLLM's flag")
        else:
            parser.add_argument(
                flag, dest=name, metavar="VALUE", help=f"default {'off' if default is None else default}"
            )


def simulate(arguments: argparse.Namespace) -> int:
    """Serve until stopped. Returns the exit code.

    Raises:
        ConfigError: a setting is none, or the file cannot be read.
    """
    from inferwatch_simulator import server  # noqa: PLC0415 - not for --help

    tree = read_file(arguments.config) if arguments.config else {}
    for name in SimulatorConfig.__struct_fields__:
        if (value := getattr(arguments, name)) is not None:
            tree[name] = value
    try:
        settings = msgspec.convert(tree, SimulatorConfig, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"simulate: {reworded(str(error))}") from None
    try:
        server.run(settings)
    except server.CannotListenError as error:
        sys.stderr.write(f"inferwatch: simulate: {error}\n")
        return EXIT_RUNTIME
    return EXIT_OK


def configure_demo(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `demo`."""
    parser.add_argument(
        "--scenario",
        choices=[scenario.name for scenario in SCENARIOS],
        default=SCENARIOS[0].name,
        help=f"what it shows (default {SCENARIOS[0].name}): "
        + "; ".join(f"{scenario.name}: {scenario.help}" for scenario in SCENARIOS),
    )
    parser.add_argument("--seconds", metavar="S", type=positive, help="stop after this long (default: at Ctrl-C)")
    parser.add_argument("--against", metavar="URL", type=_url, help="only the traffic, to what listens there already")
    parser.add_argument("--rate", metavar="N", type=positive, help="conversations per second (default the scenario's)")
    parser.add_argument("--open", action="store_true", help="open the live page in a browser")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same traffic (default 1)")
    parser.add_argument("--listen", default="127.0.0.1:8080", help="data port; another is taken if it is not free")
    parser.add_argument("--admin", default="127.0.0.1:9480", help="admin port; another is taken if it is not free")


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+/?", text):
        raise argparse.ArgumentTypeError(f"expected `http://host:port` without a path, got `{text}`")
    return text


def demo(arguments: argparse.Namespace) -> int:
    """Show it. Returns the exit code.

    Raises:
        ConfigError: `--listen` or `--admin` is no address.
    """
    from inferwatch_simulator import demo_start  # noqa: PLC0415 - not for --help

    return demo_start.run(
        demo_start.Options(
            seconds=arguments.seconds,
            against=arguments.against,
            rate=arguments.rate,
            scenario=arguments.scenario,
            browser=arguments.open,
            seed=arguments.seed,
            listen=arguments.listen,
            admin=arguments.admin,
        )
    )
