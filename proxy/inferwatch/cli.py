"""`inferwatch`: the commands, declared once in COMMANDS."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from inferwatch import __version__, admin_token, config, output, progress, redis_address
from inferwatch.config import Config, ConfigError
from inferwatch.flags import EXIT_OK, EXIT_RUNTIME, EXIT_USAGE, OneLineParser, positive
from inferwatch.tenants import MIN_SECRET_BYTES, read_table

# Names the file for every command that reads it: in a container the health check and `docker exec … inferwatch report`
# then see the configuration that `serve` does.
CONFIG_VARIABLE: Final = "INFERWATCH_CONFIG"

# A capture is for people to look at and to attach to a report.
MAX_READINGS: Final = 1000

# Flag -> key. Only what people change at a first try; everything else is in the file and the environment.
_FLAGS: Final = {
    "--upstream": ("upstream.url", "URL", "where the engine listens (default http://127.0.0.1:8000)"),
    "--listen": ("listen", "HOST:PORT", "data port (default 0.0.0.0:8080)"),
    "--admin": ("admin", "HOST:PORT", "admin port with /metrics (default 127.0.0.1:9480)"),
    "--workers": ("workers", "N", "relay processes (default 1)"),
    "--state-dir": ("state_dir", "DIR", "ledger, spool and key"),
    "--engine": ("upstream.engine", "NAME", "what the engine is, see docs/engines.md (default auto)"),
    "--token-file": ("access.token_file", "FILE", "token of the admin port; see docs/topics/operations.md"),
    "--log-level": ("log.level", "LEVEL", "debug, info, warning or error (default info)"),
}


class Command(NamedTuple):
    """One subcommand. `examples` are (command line, what it does), shown by `--help`."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def epilog(self) -> str:
        """The examples as text."""
        lines = [f"  {line}\n      {meaning}" for line, meaning in self.examples]
        return "\n".join(["examples:", *lines]) if lines else ""


def _config_flags(parser: argparse.ArgumentParser, only: Sequence[str] = tuple(_FLAGS)) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file; see docs/configuration.md (default ${CONFIG_VARIABLE})"
    )
    for flag in only:
        key, metavar, text = _FLAGS[flag]
        parser.add_argument(flag, dest=key, metavar=metavar, help=text)


def _config_path(arguments: argparse.Namespace) -> str | None:
    return arguments.config or os.environ.get(CONFIG_VARIABLE)


def _load(arguments: argparse.Namespace) -> Config:
    flags = {key: getattr(arguments, key, None) for key, _, _ in _FLAGS.values()}
    loaded = config.load(_config_path(arguments), flags=flags)
    if loaded.prices.compare or loaded.prices.catalogue_file:
        from inferwatch_collectors.cost import catalogue  # noqa: PLC0415

        catalogue.comparisons(loaded.prices)  # refused here, by the name of the key, rather than in the collector
    if loaded.privacy.keeps_content():
        from inferwatch_collectors.privacy import start  # noqa: PLC0415

        start.check(loaded.privacy)  # as above
    elif loaded.drift.embeddings.redacts:
        from inferwatch_collectors.privacy import start  # noqa: PLC0415

        try:
            start.check(loaded.privacy)
        except ConfigError as error:
            raise ConfigError(f"drift.embeddings.redact: {error}") from None
    if loaded.otlp.exports():
        from inferwatch_collectors.otlp import extras  # noqa: PLC0415

        extras.check(loaded.otlp)  # as above
    return loaded


def _load_to_serve(arguments: argparse.Namespace) -> Config:
    """Load it where it will be lived by: what it names must be here."""
    loaded = _load(arguments)
    redis_address.check(loaded.budgets.redis)
    _ = admin_token.digests(loaded.access, loaded.feedback)  # as above
    return loaded


def _serve(arguments: argparse.Namespace) -> int:
    from inferwatch import supervisor  # noqa: PLC0415 - a command pays for its own imports only

    loaded = _load_to_serve(arguments)
    supervisor.configure_log(loaded.log.level)
    return supervisor.serve(loaded, lambda: _load_to_serve(arguments))


def _check_config_flags(parser: argparse.ArgumentParser) -> None:
    _config_flags(parser)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--print-default", action="store_true", help="print a commented file to start from instead")
    instead.add_argument("--schema", action="store_true", help="print the file's JSON schema, for editors, instead")


def _check_config(arguments: argparse.Namespace) -> int:
    from inferwatch import config_pages  # noqa: PLC0415

    if arguments.print_default or arguments.schema:
        page = config_pages.schema() if arguments.schema else config_pages.template().encode()
        sys.stdout.buffer.write(page)
        return EXIT_OK
    loaded = _load_to_serve(arguments)
    _ = read_table(loaded.tenants, bytes(MIN_SECRET_BYTES))  # whether the keys can be read; nothing is kept of them
    sys.stdout.buffer.write(msgspec.yaml.encode(config.redacted(loaded)))
    return EXIT_OK


def _completion_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _completion(arguments: argparse.Namespace) -> int:
    import shtab  # noqa: PLC0415

    sys.stdout.write(shtab.complete(build_parser(), arguments.shell) + "\n")
    return EXIT_OK


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"inferwatch {__version__}\n")
    return EXIT_OK


def _healthcheck_flags(parser: argparse.ArgumentParser) -> None:
    _config_flags(parser)
    parser.add_argument("--timeout-s", type=positive, default=3.0, help="give up after this (default 3)")


def _healthcheck(arguments: argparse.Namespace) -> int:
    from inferwatch import healthcheck  # noqa: PLC0415

    return healthcheck.run(arguments, _config_path(arguments))


def _simulate_flags(parser: argparse.ArgumentParser) -> None:
    from inferwatch_simulator import command  # noqa: PLC0415

    command.configure_simulate(parser)


def _simulate(arguments: argparse.Namespace) -> int:
    from inferwatch_simulator import command  # noqa: PLC0415

    return command.simulate(arguments)


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    from inferwatch_simulator import command  # noqa: PLC0415

    command.configure_demo(parser)


def _demo(arguments: argparse.Namespace) -> int:
    from inferwatch_simulator import command  # noqa: PLC0415

    return command.demo(arguments)


def _top_flags(parser: argparse.ArgumentParser) -> None:
    from inferwatch.top import command  # noqa: PLC0415

    _config_flags(parser, ("--admin", "--token-file"))
    command.configure(parser)


def _top(arguments: argparse.Namespace) -> int:
    from inferwatch.top import command  # noqa: PLC0415

    return command.run(arguments, _load(arguments))


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    from inferwatch.doctor import command  # noqa: PLC0415

    _config_flags(parser)
    command.configure(parser)
    parser.add_argument("--capture", metavar="FILE", help="only record what the GPU driver says into FILE")
    parser.add_argument("--readings", metavar="N", type=_count, default=5, help="of a capture (default 5)")
    parser.add_argument(
        "--privacy", metavar="FILE", help="only show what `privacy.content: hashed` would keep of a text (-: stdin)"
    )
    parser.add_argument("--tenant", default="anonymous", help="whose text: pseudonyms differ (default anonymous)")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_READINGS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_READINGS}, got {text}")
    return int(text)


def _doctor(arguments: argparse.Namespace) -> int:
    from inferwatch.doctor import command  # noqa: PLC0415
    from inferwatch_collectors.gpu import capture  # noqa: PLC0415

    if arguments.privacy:
        from inferwatch_collectors.privacy import audit  # noqa: PLC0415

        return audit.show(_load(arguments), arguments.privacy, arguments.tenant)
    if not arguments.capture:
        return command.run(arguments, lambda: _load(arguments))
    gpu = _load(arguments).gpu
    with progress.shown("doctor: reading the GPUs"):
        return capture.write(arguments.capture, gpu.nvml_library, samples=arguments.readings, interval_s=gpu.interval_s)


def _report_flags(parser: argparse.ArgumentParser) -> None:
    from inferwatch_collectors.report import command  # noqa: PLC0415

    _config_flags(parser)
    command.configure(parser)


def _report(arguments: argparse.Namespace) -> int:
    from inferwatch_collectors.report import command  # noqa: PLC0415

    return command.run(arguments, _load(arguments))


COMMANDS: Final = {
    "serve": Command(
        "stand in front of an engine",
        _config_flags,
        _serve,
        (
            ("inferwatch serve --upstream http://127.0.0.1:8000", "clients talk to port 8080, Prometheus to 9480"),
            ("inferwatch serve --config inferwatch.yml --workers 4", "with a file, on four processes"),
        ),
    ),
    "simulate": Command(
        "pretend to be an inference server",
        _simulate_flags,
        _simulate,
        (("inferwatch simulate --port 8000 --speed 4", "a vLLM to try things against, four times as fast"),),
    ),
    "demo": Command(
        "a simulated engine, the proxy, and live numbers in the terminal",
        _demo_flags,
        _demo,
        (
            ("inferwatch demo", "a day in four minutes, until Ctrl-C"),
            ("inferwatch demo --scenario budget --seconds 60", "a minute in which budgets run out"),
            ("inferwatch demo --rate 12 --seed 7", "brisk traffic, and other requests"),
        ),
    ),
    "top": Command(
        "the live page in this terminal: tenants, models, streams, GPUs",
        _top_flags,
        _top,
        (
            ("inferwatch top", "of the Inferwatch on this host; h shows the keys"),
            ("inferwatch top --view streams --sort tok/s --reverse", "the slowest streams first"),
            ("inferwatch top --once --view tenants", "one page as text, for a mail or a ticket"),
            ("inferwatch top --json", "one frame, for scripts"),
        ),
    ),
    "doctor": Command(
        "what is wrong here, and what to do about it",
        _doctor_flags,
        _doctor,
        (
            ("inferwatch doctor --upstream http://127.0.0.1:8000", "before or beside `serve`; changes nothing"),
            ("inferwatch doctor --capture gpus.json", "what the GPU driver says, to attach to a report"),
            ("inferwatch doctor --privacy prompt.txt", "what would be kept of a text, and what was found in it"),
        ),
    ),
    "report": Command(
        "what was used, by whom, at what cost; and exports",
        _report_flags,
        _report,
        (
            ("inferwatch report", "the last 30 days, by everything"),
            ("inferwatch report --by model --format markdown", "by model, as a page to forward"),
        ),
    ),
    "check-config": Command(
        "check the configuration and print it",
        _check_config_flags,
        _check_config,
        (
            ("inferwatch check-config --config inferwatch.yml", "what would be in force"),
            ("inferwatch check-config --print-default", "every key with its default, to start a file from"),
        ),
    ),
    "healthcheck": Command(
        "exit 0 if the data path is alive",
        _healthcheck_flags,
        _healthcheck,
        (("inferwatch healthcheck --admin 127.0.0.1:9480", "for a container's health check"),),
    ),
    "completion": Command(
        "print a completion script for a shell",
        _completion_flags,
        _completion,
        (("inferwatch completion bash", "into ~/.local/share/bash-completion/completions/inferwatch, say"),),
    ),
    "version": Command("print the version", lambda _: None, _version),
}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; with `chosen`, only that command's flags are filled in, which spares the imports of others."""
    parser = OneLineParser(prog="inferwatch", description="A sidecar that watches self-hosted models.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if chosen is None or name == chosen:
            command.configure(subparser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0, 1 at run time, 2 usage or configuration."""
    words = sys.argv[1:] if argv is None else argv
    arguments, extra = build_parser(words[0] if words else "").parse_known_args(words)
    if extra:  # said by the command's own parser: its help has the flags
        OneLineParser(prog=f"inferwatch {arguments.command}").error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        code = COMMANDS[arguments.command].run(arguments)
        output.finish()
    except ConfigError as error:
        sys.stderr.write(f"inferwatch: {error}\n")
        return EXIT_USAGE
    except OSError as error:
        if not output.refused(error):
            raise
        output.give_up(error)
        return EXIT_RUNTIME
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("interrupted")
        return EXIT_RUNTIME
    return code


if __name__ == "__main__":
    sys.exit(main())
