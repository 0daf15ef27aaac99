"""The configuration: precedence, what each mistake is answered with, what may be shown, and the reference page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import config, config_pages
from inferwatch.config import ENV_PREFIX, Config, ConfigError
from inferwatch.config import keys as declared_keys
from inferwatch.settings.traffic import Upstream

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
TESTDATA = ROOT / "tests/testdata/config"

# file in testdata/config -> the whole error. One mistake a file.
ENGINES = "anthropic, auto, llamacpp, ollama, openai, sglang, tgi, transformers, triton, trtllm, unknown, vllm"

UPSTREAM_PASSWORD = "upstream.url: holds a user or a password, which the engine would not get; give `http://host:port`"

FILE_MISTAKES = {
    "invalid-not-yaml": (
        '--config FILE: not YAML: while parsing a flow sequence in "<unicode string>", line 1, column 9: '
        "listen: [\"127.0.0.1:8080\" ^ expected ',' or ']', but got '<stream end>' "
        'in "<unicode string>", line 2, column 1: ^'
    ),
    "invalid-tab": (
        "--config FILE: not YAML: while scanning for the next token found character '\\t' that cannot start any token "
        'in "<unicode string>", line 2, column 1: url: http://127.0.0.1:8000 ^'
    ),
    "invalid-python-object": (
        "--config FILE: not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.getcwd' "
        'in "<unicode string>", line 1, column 9: listen: !!python/object/apply:os.getcwd [] ^'
    ),
    "invalid-date": "--config FILE: not YAML: month must be in 1..12",
    "invalid-not-a-mapping": "--config FILE: expected a mapping of keys, got list",
    "invalid-key-not-a-word": "configuration: a key is not a word",
    "invalid-section-key-not-a-word": "upstream: a key is not a word",
    "invalid-unknown-key": "object contains unknown field `listen_on`",
    "invalid-unknown-section-key": "upstream: object contains unknown field `timeouts`",
    "invalid-section-is-a-value": "upstream: expected `object`, got `str`",
    "invalid-key-is-empty": "listen: expected `str`, got `null`",
    "invalid-repeated-key": (
        '--config FILE: not YAML: `listen` is written twice in "<unicode string>", line 3, column 1: '
        "listen: 127.0.0.1:8081 ^"
    ),
    "invalid-listen-is-a-number": "listen: expected `str`, got `int`",
    "invalid-listen-without-port": "listen: expected `host:port`, got `127.0.0.1`",
    "invalid-listen-port-too-high": "listen: expected `host:port`, got `127.0.0.1:65536`",
    "invalid-listen-port-not-ascii": "listen: expected `host:port`, got `127.0.0.1:8²`",
    "invalid-listen-null-byte": "listen: holds a null byte",
    "invalid-admin-without-port": "admin: expected `host:port`, got `localhost`",
    "invalid-workers-none": "workers: expected `int` >= 1",
    "invalid-workers-too-many": "workers: expected `int` <= 256",
    "invalid-workers-broken": "workers: expected `int`, got `float`",
    "invalid-workers-bool": "workers: expected `int`, got `bool`",
    "invalid-state-dir-list": "state_dir: expected `str`, got `array`",
    "invalid-upstream-scheme": "upstream.url: expected `http://host:port` without a path, got `ftp://127.0.0.1:8000`",
    "invalid-upstream-path": "upstream.url: expected `http://host:port` without a path, got `http://127.0.0.1:8000/v1`",
    "invalid-upstream-query": (
        "upstream.url: expected `http://host:port` without a path, got `http://127.0.0.1:8000?model=a`"
    ),
    "invalid-upstream-fragment": (
        "upstream.url: expected `http://host:port` without a path, got `http://127.0.0.1:8000#a`"
    ),
    "invalid-upstream-port": "upstream.url: expected `http://host:port` without a path, got `http://127.0.0.1:99999`",
    "invalid-upstream-port-zero": "upstream.url: expected `http://host:port` without a path, got `http://127.0.0.1:0`",
    "invalid-upstream-no-host": "upstream.url: expected `http://host:port` without a path, got `http://`",
    "invalid-upstream-brackets": "upstream.url: expected `http://host:port` without a path, got `http://[::1`",
    "invalid-upstream-blank-in-host": (
        "upstream.url: expected `http://host:port` without a path, got `http://my engine:8000`"
    ),
    "invalid-upstream-password": UPSTREAM_PASSWORD,
    "invalid-upstream-is-us": (
        "upstream.url: port 8080 here is that of `listen`: requests would go round; name the engine's"
    ),
    "invalid-admin-is-listen": "admin: port 9480 is that of `listen`; the data port and the admin port are two",
    "invalid-upstream-engine": f"upstream.engine: invalid enum value 'trition', expected {ENGINES}",
    "invalid-timeout-zero": "upstream.connect_timeout_s: expected `float` > 0.0",
    "invalid-timeout-with-unit": "upstream.connect_timeout_s: expected `float`, got `str`",
    "invalid-timeout-infinite": "upstream.connect_timeout_s: expected `float` <= 31536000.0",
    "invalid-timeout-not-a-number": "upstream.idle_timeout_s: expected `float` > 0.0",
    "invalid-tls-ca-missing": "upstream.tls_ca_file: cannot read `/nonexistent/ca.pem`",
    "invalid-tls-ca-is-no-pem": (
        "upstream.tls_ca_file: `tests/testdata/config/not-a-certificate.pem` holds no usable PEM certificate"
    ),
    "invalid-tls-half": "tls.key_file: `tls.cert_file` and `tls.key_file` go together",
    "invalid-tls-cert-missing": "tls.cert_file: cannot read `/nonexistent/cert.pem`",
    "invalid-tls-is-no-pem": (
        "tls.cert_file: `tests/testdata/config/not-a-certificate.pem` and its key are not a usable PEM pair"
    ),
    "invalid-limits-none": "limits.max_request_bytes: expected `int` >= 1",
    "invalid-usage-ask": "usage.ask: expected `bool`, got `str`",
    "invalid-tap-body-negative": "tap.max_body_bytes: expected `int` >= 0",
    "invalid-drain-delay-negative": "drain.delay_s: expected `float` >= 0.0",
    "invalid-peers-not-a-network": "identity.trusted_peers: `gateway` is not a network",
    "invalid-peers-number": "identity.trusted_peers[1]: expected `str`, got `int`",
    "invalid-peers-mask": "identity.trusted_peers: `10.0.0.0/33` is not a network",
    "invalid-key-file-missing": "identity.key_file: cannot read `/nonexistent/identity.key`",
    "invalid-key-file-null-byte": "identity.key_file: holds a null byte",
    "invalid-log-level": "log.level: invalid enum value 'verbose', expected debug, error, info, warning",
    "invalid-feedback-two-tokens": "feedback.token_env: only one of `token_file` and `token_env` can be given",
    "invalid-feedback-variable": "feedback.token_env: expected the name of an environment variable",
    "invalid-ledger-days": "ledger.retention_days: expected `int` >= 1",
    "invalid-ledger-days-many": "ledger.retention_days: expected `int` <= 36500",
    "invalid-ledger-hours-many": "ledger.hour_retention_days: expected `int` <= 36500",
    "invalid-ledger-sums-many": "ledger.day_retention_days: expected `int` <= 36500",
    "invalid-metrics-models": "metrics.max_models: expected `int`, got `str`",
    "invalid-trace-mint": "trace.mint: expected `bool`, got `int`",
    "invalid-otlp-endpoint": "otlp.endpoint: expected `http://host:port` or `https://host:port`",
    "invalid-otlp-tracestate": "otlp.tracestate_keys[1]: expected a key of `tracestate`, as `ot` or `tenant@vendor`",
    "invalid-otlp-tenant-twice": "otlp.tenants[1].tenant: written twice",
    "invalid-canary-prompt-empty": "canary.prompts: one is empty, or written twice",
    "invalid-canary-prompt-long": "canary.prompts: one of 2001 characters, expected at most 2000",
    "invalid-canary-models": "canary.models: 9 of them, expected at most 8",
    "invalid-canary-key": "canary.key_env: expected the name of an environment variable",
    "invalid-canary-logprobs": "canary.top_logprobs: expected `int` <= 20",
    "invalid-embeddings-url": "drift.embeddings.url: expected `http://host:port`, with a path if there is one, or `own`",
    "invalid-embeddings-password": "drift.embeddings.url: holds a user or a password; use `drift.embeddings.token_file`",
    "invalid-quality-cut-unheard": (
        "quality.cut_loops: needs `quality.enabled` and `quality.listen`, for loops are looked for in texts"
    ),
    "invalid-quality-cut-off": (
        "quality.cut_loops: needs `quality.enabled` and `quality.listen`, for loops are looked for in texts"
    ),
    "invalid-embeddings-no-text": "drift.embeddings.url: needs `drift.text`",
    "invalid-embeddings-no-model": "drift.embeddings.model: expected the name of a model",
    "invalid-embeddings-no-url": "drift.embeddings.model: needs `drift.embeddings.url`",
    "invalid-embeddings-key": "drift.embeddings.key_env: expected the name of an environment variable",
    "invalid-embeddings-two-tokens": "drift.embeddings.key_env: a token from there or from `drift.embeddings.token_file`, not from both",
    "invalid-embeddings-numbers": "drift.embeddings.numbers: expected `int` <= 16",
    "invalid-privacy-untraced": "privacy.content: is kept in traces, and `otlp.traces` is off",
    "invalid-privacy-no-key": "privacy.key_file: needed where `privacy.content` keeps any",
    "invalid-privacy-key-file-missing": "privacy.key_file: cannot read `/nonexistent/privacy.keys`",
    "invalid-privacy-custom-name": "privacy.custom[0].name: expected capital letters, digits and `_`, at most 40",
}

ENVIRONMENT_MISTAKES = [
    ({"INFERWATCH__LISTENER": "x"}, "environment INFERWATCH__LISTENER: there is no key `listener`"),
    ({"INFERWATCH__UPSTREAM": "http://h:1"}, "environment INFERWATCH__UPSTREAM: there is no key `upstream`"),
    (
        {"INFERWATCH__UPSTREAM__URL__HOST": "h"},
        "environment INFERWATCH__UPSTREAM__URL__HOST: there is no key `upstream.url.host`",
    ),
    ({"INFERWATCH__": "x"}, "environment INFERWATCH__: there is no key ``"),
    (
        {"INFERWATCH__PRICES__RULES": "x"},
        "environment INFERWATCH__PRICES__RULES: `prices.rules` is a list of sections, write it in the file",
    ),
    (
        {"INFERWATCH__PRICES__RULES[]__INPUT": "1"},
        (
            "environment INFERWATCH__PRICES__RULES[]__INPUT: `prices.rules[].input` is a list of sections, "
            "write it in the file"
        ),
    ),
    ({"INFERWATCH__WORKERS": ""}, "workers: expected `int`, got `str` (environment INFERWATCH__WORKERS)"),
    ({"INFERWATCH__WORKERS": "two"}, "workers: expected `int`, got `str` (environment INFERWATCH__WORKERS)"),
    ({"INFERWATCH__USAGE__ASK": "yes"}, "usage.ask: expected `bool`, got `str` (environment INFERWATCH__USAGE__ASK)"),
    (
        {"INFERWATCH__DRAIN__TIMEOUT_S": "-3"},
        "drain.timeout_s: expected `float` > 0.0 (environment INFERWATCH__DRAIN__TIMEOUT_S)",
    ),
    ({"INFERWATCH__IDENTITY__TRUSTED_PEERS": "::1, x"}, "identity.trusted_peers: `x` is not a network"),
]

FLAG_MISTAKES = [
    ({"workers": "none"}, "workers: expected `int`, got `str`"),
    ({"workers": "0"}, "workers: expected `int` >= 1"),
    (
        {"upstream.url": "127.0.0.1:8000"},
        "upstream.url: expected `http://host:port` without a path, got `127.0.0.1:8000`",
    ),
    (
        {"upstream.engine": "gpt"},
        f"upstream.engine: invalid enum value 'gpt', expected {ENGINES}",
    ),
    ({"listen": ":eighty"}, "listen: expected `host:port`, got `:eighty`"),
    ({"admin": "9480"}, "admin: expected `host:port`, got `9480`"),
    ({"log.level": "loud"}, "log.level: invalid enum value 'loud', expected debug, error, info, warning"),
]


def error_of(path: Path | None = None, **given_: Any) -> str:
    """Load and return the error, with the path of the file shortened to FILE."""
    given_.setdefault("environ", {})
    with pytest.raises(ConfigError) as caught:
        config.load(str(path) if path else None, **given_)
    return str(caught.value).replace(str(path), "FILE")


def outcome_of(step: Callable[[], T]) -> T | ConfigError:
    """Return what `step` returns, or its ConfigError; any other exception fails the test."""
    try:
        return step()
    except ConfigError as error:
        return error


def written(folder: Path, text: str) -> Path:
    path = folder / "inferwatch.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("stem", FILE_MISTAKES)
def test_a_mistake_in_the_file_is_named_in_one_exact_line(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong file gives its own error: the key and what is wrong with it, on one line."""
    monkeypatch.chdir(ROOT)
    path = TESTDATA / f"{stem}.yml"

    error = error_of(path)

    assert FILE_MISTAKES[stem] == error
    assert "\n" not in error


def test_every_file_of_mistakes_has_its_error() -> None:
    """No file in testdata goes unread, and no line of the table lacks its file."""
    assert set(FILE_MISTAKES) == {path.stem for path in TESTDATA.glob("invalid-*.yml")}


@pytest.mark.parametrize(("environ", "expected"), ENVIRONMENT_MISTAKES)
def test_a_mistake_in_the_environment_names_variable_or_key(environ: dict[str, str], expected: str) -> None:
    """An unknown variable is named as it is written in the environment; a wrong value by its key."""
    assert expected == error_of(environ=environ)


@pytest.mark.parametrize(("flags", "expected"), FLAG_MISTAKES)
def test_a_mistake_in_a_flag_names_the_key(flags: dict[str, str], expected: str) -> None:
    """Flags are checked like everything else."""
    assert expected == error_of(flags=flags)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nonexistent/inferwatch.yml", "--config FILE: No such file or directory"),
        ("/", "--config FILE: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(path: str, expected: str) -> None:
    """The file given with --config must be there."""
    assert expected == error_of(Path(path))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are no YAML."""
    path = tmp_path / "inferwatch.yml"
    path.write_bytes(b"listen: \xff\xfe")

    expected = "--config FILE: not YAML: 'utf-8' codec can't decode byte 0xff in position 8: invalid start byte"
    assert expected == error_of(path)


@pytest.mark.parametrize("brackets", [500, 100_000])
def test_a_file_nested_beyond_reason_is_refused(tmp_path: Path, brackets: int) -> None:
    """The parser's recursion limit is an error like any other, not a traceback."""
    path = written(tmp_path, "listen: " + "[" * brackets + "]" * brackets)

    assert error_of(path) == "--config FILE: not YAML: nested too deeply"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    """A file without keys changes nothing."""
    assert Config() == config.load(str(written(tmp_path, text)), environ={})


@pytest.mark.parametrize(
    "text", ["limits:\n", "limits:\n  # max_headers: 3\n", "budgets: {redis: , rules: []}\n", "drift: {embeddings: }\n"]
)
def test_a_section_whose_keys_are_commented_out(tmp_path: Path, text: str) -> None:
    """Is one that is not there; the environment may add to it."""
    path = str(written(tmp_path, text))

    assert Config() == config.load(path, environ={})
    assert config.load(path, environ={"INFERWATCH__LIMITS__MAX_HEADERS": "3"}).limits.max_headers == 3


def test_without_anything_given_the_defaults_are_good() -> None:
    """`inferwatch serve` works without a file, an environment or flags."""
    loaded = config.load(environ={"PATH": "/bin", "INFERWATCH_OTHER": "not ours"})

    assert Config() == loaded
    assert (loaded.upstream.host, loaded.upstream.port, loaded.upstream.tls) == ("127.0.0.1", 8000, False)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each layer shows only where no higher one says anything; a section is merged key by key."""
    path = written(
        tmp_path,
        "admin: 127.0.0.1:1001\n"
        "listen: 127.0.0.1:1001\n"
        "workers: 3\n"
        "upstream:\n  url: http://file:1001\n  engine: unknown\n  idle_timeout_s: 11\n",
    )
    environ = {
        "INFERWATCH__LISTEN": "127.0.0.1:1002",
        "INFERWATCH__WORKERS": "4",
        "INFERWATCH__UPSTREAM__URL": "http://environment:1002",
        "INFERWATCH__UPSTREAM__ENGINE": "vllm",
    }
    flags = {"listen": "127.0.0.1:1003", "upstream.url": "http://flag:1003", "workers": None}

    loaded = config.load(str(path), environ=environ, flags=flags)

    assert (loaded.listen, loaded.upstream.url) == ("127.0.0.1:1003", "http://flag:1003")
    assert (loaded.workers, loaded.upstream.engine) == (4, "vllm")
    assert (loaded.admin, loaded.upstream.idle_timeout_s) == ("127.0.0.1:1001", 11.0)
    assert Config().upstream.connect_timeout_s == loaded.upstream.connect_timeout_s


def test_a_wrong_value_is_the_environments_only_if_it_is_in_force() -> None:
    """A flag in its place is named by its key alone."""
    environ = {"INFERWATCH__WORKERS": "two"}
    assert error_of(environ=environ, flags={"workers": "none"}) == "workers: expected `int`, got `str`"
    assert config.load(environ=environ, flags={"workers": "2"}).workers == 2


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load()` alone looks into `os.environ`."""
    monkeypatch.setenv("INFERWATCH__WORKERS", "7")

    assert config.load().workers == 7


def test_a_value_in_the_environment_cannot_reach_into_a_section_that_is_none(tmp_path: Path) -> None:
    """A file that gives a section a plain value is wrong also where the environment adds to the section."""
    path = written(tmp_path, "upstream: http://127.0.0.1:8000\n")

    expected = "upstream: expected a section, got a value"
    assert expected == error_of(path, environ={"INFERWATCH__UPSTREAM__ENGINE": "vllm"})


# one wrong item in a list of sections -> the whole error
ITEM_MISTAKES = [
    ("prices: {rules: {}}", "prices.rules: expected `array`, got `object`"),
    ("prices: {rules: [1]}", "prices.rules[0]: expected `object`, got `int`"),
    ("prices: {rules: [{input: 1, output: 2}, {output: 2}]}", "prices.rules[1]: object missing required field `input`"),
    ("prices: {rules: [{inputs: 1}]}", "prices.rules[0]: object contains unknown field `inputs`"),
    (
        "prices: {rules: [{input: 0.15 EUR, output: 2}]}",
        "prices.rules[0].input: expected a plain number, such as 0.15",
    ),
    ("prices: {rules: [{input: yes, output: 2}]}", "prices.rules[0].input: expected `decimal`, got `bool`"),
    (
        "prices: {rules: [{input: 1, output: 2, valid_from: 1 July}]}",
        "prices.rules[0].valid_from: expected a date, such as 2026-01-31",
    ),
    ('prices: {rules: [{input: 1, output: 2, model: "a\\0"}]}', "prices.rules[0].model: holds a null byte"),
    (
        "prices: {rules: [{input: -1, output: 2}]}",
        "prices.rules[0].input: expected dollars per million tokens, 0 or more, got -1",
    ),
    ("tenants: {known: [{name: a}, {name: a}]}", "tenants.known[1].name: `a` is written twice"),
    ("tenants: {known: [{name: a, key: sk-1}]}", "tenants.known[0]: object contains unknown field `key`"),
    ("tenants: {unknown_keys: refuse}", "tenants.unknown_keys: invalid enum value 'refuse', expected allow, reject"),
]


@pytest.mark.parametrize(("text", "expected"), ITEM_MISTAKES)
def test_a_mistake_in_an_item_of_a_list_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """Items are counted from 0; the key within the item follows."""
    assert expected == error_of(written(tmp_path, text))


def test_a_configuration_that_would_not_fit_into_one_message_is_refused(tmp_path: Path) -> None:
    """It goes to each child in one line, and a line has a bound: too long, and every relay would stop."""
    rules = "".join(f"    - {{model: {'m' * 250}{number}, input: 1, output: 2}}\n" for number in range(1000))
    path = written(
        tmp_path, f"prices:\n  rules:\n{rules}tenants:\n  known:\n    - {{name: a, keys_file: {'f' * 60_000}}}\n"
    )

    assert re.fullmatch(r"configuration: \d+ bytes, expected at most 393216", error_of(path))


@pytest.mark.parametrize("written_as", ["10.0.0.0/8,::1", " 10.0.0.0/8 , ::1 ,"])
def test_a_list_may_be_written_with_commas(tmp_path: Path, written_as: str) -> None:
    """In the environment and in the file, `a, b` is a list."""
    expected = ("10.0.0.0/8", "::1")

    from_environment = config.load(environ={"INFERWATCH__IDENTITY__TRUSTED_PEERS": written_as})
    from_file = config.load(
        str(written(tmp_path, f'identity:\n  trusted_peers: "{written_as}"\n')),
        environ={},
    )

    assert expected == from_environment.identity.trusted_peers
    assert expected == from_file.identity.trusted_peers


def test_the_full_file_has_every_key_and_none_is_ignored() -> None:
    """A key that is declared can be set: each one arrives with the value of the file."""
    path = TESTDATA / "full.yml"
    given_tree = msgspec.yaml.decode(path.read_bytes())
    files = {"upstream.tls_ca_file", "tls.cert_file", "tls.key_file", "identity.key_file", "prices.catalogue_file"}
    files |= {"budgets.redis.tls_ca_file", "access.token_file", "access.metrics_token_file"}
    files |= {"privacy.names_model"}  # and installed, too
    files |= {"access.token_env", "access.metrics_token_env"}  # read by whoever checks the file
    # A GPU is rented or bought, and an address is in one place.
    either = {"cost.hourly_dollars", "budgets.redis.url_file", "budgets.redis.url_env", "feedback.token_env"}
    either.add("drift.embeddings.key_env")  # a token, too
    either.add("quality.enabled")  # `quality.cut_loops` needs it
    # Secrets; and only dollars have a basis.
    unset = {"tenants.known[].keys_file", "tenants.known[].key_env", "budgets.rules[].basis"}

    loaded = msgspec.to_builtins(config.load(str(path), environ={}))
    defaults = msgspec.to_builtins(Config())

    assert given_tree == msgspec.json.decode(msgspec.json.encode(loaded))
    plain = {key for key, _ in declared_keys() if "[]" not in key}
    assert files | either == {key for key in plain if _at(loaded, key) == _at(defaults, key)}
    for key, field in declared_keys():
        if "[]" in key:
            section, _, name = key.partition("[].")
            assert (_at(loaded, section)[0][name] == field.default) == (key in unset), key


def test_files_that_are_named_are_taken(tmp_path: Path) -> None:
    """A certificate, its key, a CA and a secret that are fine pass the check."""
    authority = trustme.CA()
    certificate = authority.issue_cert("engine.internal")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    (tmp_path / "identity.key").write_bytes(b"k" * 32)
    environ = {
        "INFERWATCH__TLS__CERT_FILE": str(tmp_path / "cert.pem"),
        "INFERWATCH__TLS__KEY_FILE": str(tmp_path / "key.pem"),
        "INFERWATCH__UPSTREAM__TLS_CA_FILE": str(tmp_path / "ca.pem"),
        "INFERWATCH__IDENTITY__KEY_FILE": str(tmp_path / "identity.key"),
    }

    loaded = config.load(environ=environ)

    assert str(tmp_path / "cert.pem") == loaded.tls.cert_file
    assert str(tmp_path / "identity.key") == loaded.identity.key_file


def test_every_key_has_an_environment_variable() -> None:
    """The variable of `a.b` is INFERWATCH__A__B, for each key that holds a value or a list of values."""
    defaults = msgspec.to_builtins(Config())
    for key, field in declared_keys():
        if not config.in_environment(key, field) or field.default is None:  # "absent" cannot be written there
            continue
        value = _at(defaults, key)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        name = ENV_PREFIX + key.upper().replace(".", "__")

        assert Config() == config.load(environ={name: text}), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        (":8080", ("0.0.0.0", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses_are_host_and_port(text: str, expected: tuple[str, int]) -> None:
    """Without a host all interfaces are meant; IPv6 has brackets."""
    assert expected == config.parse_address("listen", text)


@given(st.text(max_size=30))
def test_an_address_is_taken_or_refused_by_name(text: str) -> None:
    """Whatever is written there: a host and a port in range, or an error that begins with the key."""
    result = outcome_of(lambda: config.parse_address("listen", text))

    if isinstance(result, ConfigError):
        assert str(result).startswith("listen: ")
    else:
        assert result[0]
        assert 0 <= result[1] <= 65535


@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists))
)
def test_no_tree_of_values_brings_anything_but_a_config_or_its_error(tree: dict[str, Any]) -> None:
    """Flags of any shape are taken or refused as a ConfigError."""
    result = outcome_of(lambda: config.load(environ={}, flags=tree))

    assert isinstance(result, Config | ConfigError)
    assert "\n" not in str(result)


@pytest.mark.parametrize(
    "text",
    ["a: !!int x", "a: !!bool x", "a: !!float x", "a: !!timestamp x", 'a: !!int ""', "a: !!set 3", "a: " + "9" * 5000],
)
def test_a_value_that_is_none_of_its_kind_is_refused(tmp_path: Path, text: str) -> None:
    """YAML's own conversions fail in many ways; all of them are one kind of error, that names the file."""
    assert error_of(written(tmp_path, text)).startswith("--config FILE: not YAML: ")


@given(st.text(alphabet=" \n\t:-?![]{},*&<>|#%'\"\\0189.~xey=", max_size=30))
def test_no_file_brings_anything_but_a_config_or_its_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any text is a configuration or is refused as a ConfigError."""
    path = written(tmp_path_factory.getbasetemp(), text)

    assert isinstance(outcome_of(lambda: config.load(str(path), environ={})), Config | ConfigError)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1:8000",
        "https://secret@engine",
        "http://:secret@[::1]:8000/",
        "http://u:secret/w@h:8000",
        "http://u:s@secret@h",
        "http://h:8000/?secret@h",
        "secret@",
    ],
)
def test_an_upstream_with_a_password_is_refused_and_not_quoted(url: str) -> None:
    """The relay sends the engine none, and it would be in logs and tickets; also where it is no URL."""
    assert error_of(environ={"INFERWATCH__UPSTREAM__URL": url}) == UPSTREAM_PASSWORD


def test_what_is_shown_hides_the_password_in_a_url() -> None:
    """Whatever came past the checks."""
    tree = config.redacted(Config(upstream=Upstream(url="http://user:secret@127.0.0.1:8000/")))

    assert tree["upstream"]["url"] == "http://***@127.0.0.1:8000/"


def test_what_is_shown_is_everything_else_as_it_is() -> None:
    """But for the URL, the shown configuration is the one in force, and can be written as JSON."""
    loaded = config.load(str(TESTDATA / "full.yml"), environ={})

    tree = config.redacted(loaded)

    assert msgspec.to_builtins(loaded) == tree
    assert loaded == msgspec.convert(msgspec.json.decode(msgspec.json.encode(tree)), Config)


def test_what_reload_takes_up_is_a_part_of_the_configuration() -> None:
    """Sockets, processes, folder, TLS, tap and the collector's bounds are for a restart; the rest is reloaded."""
    sections = set(Config.__struct_fields__)

    restart = {"listen", "admin", "workers", "state_dir", "tls", "tap", "metrics", "ledger", "anomalies", "gpu"}
    restart |= {"cost", "attribution", "energy", "drift", "quality", "feedback", "canary", "otlp", "privacy", "live"}
    assert restart == sections - config.RELOADABLE
    assert sections >= config.RELOADABLE


def test_every_key_is_in_the_reference_page_with_default_and_meaning() -> None:
    """docs/configuration.md is what the declarations say, and none of them is without a word."""
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

    assert config_pages.reference() == page
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    assert {f"`{key}`" for key, _ in declared_keys()} == set(lines)
    for line in lines.values():
        assert line.split("|")[3].strip(), line


def test_the_configuration_cannot_be_changed_in_place() -> None:
    """A Config is a value: a reload makes a new one."""
    with pytest.raises(AttributeError):
        Config().workers = 2  # type: ignore[misc]


def _at(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value[name]
    return value
