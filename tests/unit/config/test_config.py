"""File, environment and flags to one `Settings`; whatever is wrong is said, with the nearest right thing."""

from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trunkline_server.config import (
    MAX_FILE_BYTES,
    MAX_SECRET_CHARS,
    ConfigError,
    KeySettings,
    PanelSettings,
    RouteSettings,
    ServerSettings,
    Settings,
    is_loopback,
    load,
    secret,
    split_address,
)
from trunkline_server.core.panels import Trigger

PROVIDER = '[[providers]]\nid = "p"\nbase_url = "http://p.test"\n'
MODEL = '[[models]]\nid = "m"\nprovider = "p"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory of a test, without a configuration."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, environment: dict[str, str] | None = None, **flags: Any) -> Settings:
    """The settings of a file of this text."""
    Path("given.toml").write_text(text)
    dotted = {f"server.{name}": value for name, value in flags.items()}
    settings, source = load("given.toml", environment or {}, dotted)
    assert source == "given.toml"
    return settings


def problems(text: str, environment: dict[str, str] | None = None, **flags: Any) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        read(text, environment, **flags)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def test_without_anything_there_are_defaults():
    assert load(None, {}, {}) == (Settings(), "")


def test_the_file_of_the_folder_is_found():
    Path("trunkline.toml").write_text('[server]\ngrpc = "127.0.0.1:1"\n')

    settings, source = load(None, {}, {})

    assert settings == Settings(server=ServerSettings(grpc="127.0.0.1:1"))
    assert source == "trunkline.toml"


def test_a_file_that_is_named_wins_over_the_variable_and_that_over_the_folder():
    for name in ("trunkline.toml", "of-variable.toml", "named.toml"):
        Path(name).write_text("")
    environment = {"TRUNKLINE_CONFIG": "of-variable.toml"}

    sources = [
        load("named.toml", environment, {})[1],
        load(None, environment, {})[1],
        load(None, {}, {})[1],
    ]

    assert sources == ["named.toml", "of-variable.toml", "trunkline.toml"]


def test_flags_win_over_variables_and_these_over_the_file():
    text = '[server]\ngrpc = "127.0.0.1:1"\nhttp = "127.0.0.1:1"\nworkers = 1\n'
    environment = {"TRUNKLINE_SERVER_HTTP": "127.0.0.1:2", "TRUNKLINE_SERVER_WORKERS": "2"}

    settings = read(text, environment, workers=3, grpc=None)

    assert settings == Settings(
        server=ServerSettings(grpc="127.0.0.1:1", http="127.0.0.1:2", workers=3)
    )


def test_variables_are_written_as_in_toml_or_as_bare_words():
    environment = {
        "TRUNKLINE_SERVER_GRPC": "localhost:1",
        "TRUNKLINE_SERVER_HTTP": '"localhost:2"',
        "TRUNKLINE_SERVER_DRAIN_S": "2.5",
        "TRUNKLINE_SERVER_LOG_LEVEL": "debug",
        "TRUNKLINE_LIMITS_MAX_IN_FLIGHT": "5",
        "TRUNKLINE_LOCAL_ENABLED": "false",
        "TRUNKLINE_API_KEY": "a key for the command, not a setting",
        "TRUNKLINER": "somebody else's",
    }

    settings = load(None, environment, {})[0]

    assert msgspec.to_builtins(settings.server) == {
        **msgspec.to_builtins(ServerSettings()),
        "grpc": "localhost:1",
        "http": "localhost:2",
        "drain_s": 2.5,
        "log_level": "debug",
    }
    assert (settings.limits.max_in_flight, settings.local.enabled) == (5, False)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("[sever]\n", {}, "unknown key 'sever'; did you mean 'server'?"),
        ("zzzz = 1\n", {}, "unknown key 'zzzz'"),
        ('[server]\ngprc = ""\n', {}, "unknown key server.'gprc'; did you mean 'grpc'?"),
        (
            "[limits]\nmax_inflight = 1\n",
            {},
            "unknown key limits.'max_inflight'; did you mean 'max_in_flight'?",
        ),
        ("[local]\nslot = 1\n", {}, "unknown key local.'slot'; did you mean 'slots'?"),
        (
            '[[providers]]\nid = "p"\napi_key = "sk-1"\n',
            {},
            "unknown key providers[0].'api_key'; did you mean 'api_key_env'?",
        ),
        (
            PROVIDER + MODEL + '[[models]]\nid = "n"\nprovider = "p"\nalias = ["x"]\n',
            {},
            "unknown key models[1].'alias'; did you mean 'aliases'?",
        ),
        (
            '[[routes]]\nid = "r"\ncandidate = ["m"]\n',
            {},
            "unknown key routes[0].'candidate'; did you mean 'candidates'?",
        ),
        (
            '[[keys]]\nid = "k"\nkeyenv = "K"\n',
            {},
            "unknown key keys[0].'keyenv'; did you mean 'key_env'?",
        ),
        (
            '[secrets.a]\nenvv = "K"\n',
            {},
            "unknown key secrets.a.'envv'; did you mean 'env'?",
        ),
        (
            "",
            {"TRUNKLINE_SERVER_GPRC": "x"},
            "unknown variable TRUNKLINE_SERVER_GPRC; did you mean TRUNKLINE_SERVER_GRPC?",
        ),
        ("", {"TRUNKLINE_LOCAL_ZZZZ": "x"}, "unknown variable TRUNKLINE_LOCAL_ZZZZ"),
    ],
    ids=range(12),
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text, environment, expected):
    assert problems(text, environment) == [expected]


def test_all_unknown_keys_are_named_at_once():
    found = problems("[server]\na1 = 1\nb2 = 2\n", {"TRUNKLINE_SERVER_C3": "x"})

    assert found == [
        "unknown key server.'a1'",
        "unknown key server.'b2'",
        "unknown variable TRUNKLINE_SERVER_C3",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nworkers = 0\n", "Expected `int` >= 1: server.workers"),
        ("[server]\nworkers = 65\n", "Expected `int` <= 64: server.workers"),
        ('[server]\nworkers = "2"\n', "Expected `int`, got `str`: server.workers"),
        (
            '[server]\nlog_level = "loud"\n',
            "Invalid enum value 'loud': server.log_level",
        ),
        ("[server]\ngrpc = 50051\n", "Expected `str`, got `int`: server.grpc"),
        (
            PROVIDER + MODEL + 'capabilities = ["flying"]\n',
            "Invalid enum value 'flying': models[0].capabilities[0]",
        ),
        (
            PROVIDER + MODEL + "scores = { accuracy = 1.5 }\n",
            "Expected `float` <= 1.0: models[0].scores[...]",
        ),
        (
            PROVIDER + '[[models]]\nid = "m"\n',
            "Object missing required field `provider`: models[0]",
        ),
        (
            '[[routes]]\nid = "r"\ncandidates = []\n',
            "routes: 'r' needs candidates, or a panel",
        ),
        (
            PROVIDER + "first_token_timeout_s = 0\n",
            "Expected `float` > 0.0: providers[0].first_token_timeout_s",
        ),
    ],
    ids=range(10),
)
def test_a_wrong_value_is_refused_with_its_place(text, expected):
    assert problems(text) == [expected]


@pytest.mark.parametrize("text", ["server = 5\n", "[[server]]\nworkers = 1\n", 'server = "x"\n'])
@pytest.mark.parametrize("how", ["file", "variable", "flag"])
def test_a_section_that_is_no_table_is_refused_however_it_is_added_to(text, how):
    environment = {"TRUNKLINE_SERVER_WORKERS": "2"} if how == "variable" else {}
    flags = {"workers": 2} if how == "flag" else {}

    found = problems(text, environment, **flags)

    assert len(found) == 1
    assert found[0].startswith("Expected `object`, got ")
    assert found[0].endswith(": server")


IS_OPEN = (
    "is open to other machines, and without [[keys]] everyone may use it; "
    "add a key or listen on 127.0.0.1"
)
ROUTE = PROVIDER + MODEL + '[[routes]]\nid = "r"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[server]\ngrpc = "nowhere"\n', "server.grpc: 'nowhere' is no HOST:PORT"),
        (
            '[server]\nhttp = "127.0.0.1:99999"\n',
            "server.http: '127.0.0.1:99999' is no HOST:PORT",
        ),
        ('[server]\nhttp = "127.0.0.1:²"\n', "server.http: '127.0.0.1:²' is no HOST:PORT"),
        (
            '[server]\nhttp = "unix:/run/http"\n',
            "server.http: 'unix:/run/http' is no HOST:PORT",
        ),
        (
            '[server]\ngrpc = "0.0.0.0:1"\n',
            f"server.grpc: 0.0.0.0:1 {IS_OPEN}",
        ),
        (
            '[server]\nhttp = "[::]:1"\n',
            f"server.http: [::]:1 {IS_OPEN}",
        ),
        (
            '[server]\ntls_cert_file = "given.toml"\n',
            "server: tls_cert_file and tls_key_file go together",
        ),
        (
            '[server]\ntls_cert_file = "given.toml"\ntls_key_file = "no.pem"\n',
            "no.pem does not exist",
        ),
        ('[local]\nmodel_path = "no.gguf"\n', "no.gguf does not exist"),
        ('[[keys]]\nid = "k"\n', "keys: 'k' needs either key_env or key_file"),
        (
            '[[keys]]\nid = "k"\nkey_env = "K"\nkey_file = "k"\n',
            "keys: 'k' needs either key_env or key_file",
        ),
        (
            '[[keys]]\nid = "k"\nkey_env = "K"\n' * 2,
            "keys: 'k' is there twice",
        ),
        (PROVIDER * 2, "providers: 'p' is there twice"),
        (
            '[[providers]]\nid = "P!"\n',
            "providers: 'P!' is reserved or no id: lower-case letters, digits, _ and - only",
        ),
        (
            '[[providers]]\nid = "local"\n',
            "providers: 'local' is reserved or no id: lower-case letters, digits, _ and - only",
        ),
        (
            PROVIDER + 'api_key_env = "A"\napi_key_file = "a"\n',
            "providers: 'p' has both api_key_env and api_key_file",
        ),
        (
            PROVIDER + 'api_key_env = "A"\ntoken_file = "a"\n',
            "providers: 'p' has both api_key_env and token_file",
        ),
        (
            PROVIDER + 'region = "US East"\n',
            "providers: 'p': 'US East' is no region, such as us-east-1",
        ),
        (PROVIDER + 'ca_file = "no.pem"\n', "providers: no.pem does not exist"),
        *(
            (
                f'[[providers]]\nid = "p"\nbase_url = "{url}"\n',
                "providers: 'p': base_url must be http(s)://HOST[:PORT][/PATH]",
            )
            for url in (
                "p.test",
                "ftp://p.test",
                "http://",
                "http://u:pw@p.test",
                "http://p.test?a=1",
            )
        ),
        (
            PROVIDER + 'headers = { "x y" = "1" }\n',
            "providers: 'p': 'x y' is no header",
        ),
        (
            PROVIDER + 'headers = { x = "a\\nb" }\n',
            "providers: 'p': 'x' is no header",
        ),
        (
            PROVIDER + '[[models]]\nid = "m"\nprovider = "pp"\n',
            "models: 'm' names the unknown provider 'pp'; did you mean 'p'?",
        ),
        (
            PROVIDER + '[[models]]\nid = "m m"\nprovider = "p"\n',
            "models: 'm m' is no id: letters, digits and . _ : @ / - only",
        ),
        (PROVIDER + MODEL * 2, "models: p/m is there twice"),
        (
            PROVIDER + MODEL + '[[models]]\nid = "n"\nprovider = "p"\naliases = ["m"]\n',
            "models: 'm' stands for both 'm' and 'n'",
        ),
        (
            PROVIDER + MODEL + 'fallbacks = ["mm"]\n',
            "models: 'm' names the unknown model 'mm'; did you mean 'm'?",
        ),
        (
            ROUTE + 'candidates = ["mm"]\n',
            "routes: 'r' names the unknown model 'mm'; did you mean 'm'?",
        ),
        (
            ROUTE + 'candidates = ["m"]\nfallbacks = ["localhost"]\n',
            "routes: 'r' names the unknown model 'localhost'",
        ),
        *(
            (
                PROVIDER + MODEL + f'[[routes]]\nid = "{name}"\ncandidates = ["m"]\n',
                f"routes: '{name}' is a model's name already, reserved, or no id",
            )
            for name in ("m", "auto", "a b")
        ),
        ('[secrets.a]\nenv = "A"\nfile = "/a"\n', "secrets: 'a' needs either env or file"),
        ("[secrets.a]\n", "secrets: 'a' needs either env or file"),
        (
            '[[tools]]\nname = "a b"\nbuiltin = "x"\n',
            "tools: 'a b' is no name: letters, digits, _ and - only, at most 64",
        ),
        ('[[tools]]\nname = "a"\n', "tools: 'a' needs one of url, builtin and mcp_server"),
        (
            '[[tools]]\nname = "a"\nurl = "https://x.test/"\nbuiltin = "calculator"\n',
            "tools: 'a' needs one of url, builtin and mcp_server",
        ),
        (
            '[[tools]]\nname = "a"\nbuiltin = "x"\n[[tools]]\nname = "a"\nbuiltin = "x"\n',
            "tools: 'a' is there twice",
        ),
        (
            (
                '[[tools]]\nname = "a"\nurl = "https://x.test/"\nsecret = "hok"\n'
                '[secrets.hook]\nenv = "HOOK"\n'
            ),
            "tools: 'a' names the unknown secret 'hok'; did you mean 'hook'?",
        ),
        (
            '[[tools]]\nname = "a"\nmcp_server = "m"\n',
            "tools: 'a' names the unknown MCP server 'm'",
        ),
        ('[[mcp_servers]]\nid = "m"\n', "mcp_servers: 'm' needs either url or command"),
        (
            '[[mcp_servers]]\nid = "m"\ncommand = ["x"]\nenv = { T = "nope" }\n',
            "mcp_servers: 'm' names the unknown secret 'nope'",
        ),
        ('[egress]\nca_file = "/nowhere"\n', "egress: /nowhere does not exist"),
        (
            ROUTE + 'candidates = ["m"]\n[[routes]]\nid = "r"\ncandidates = ["m"]\n',
            "routes: 'r' is there twice",
        ),
        (
            ROUTE + 'candidates = ["m"]\nstrategy = "weighted"\n',
            "routes: 'r' needs one weight for each of its candidates",
        ),
        (
            ROUTE + 'candidates = ["m"]\nstrategy = "weighted"\nweights = [0.0]\n',
            "routes: 'r' needs a weight above 0",
        ),
        (
            ROUTE + 'candidates = ["m"]\nweights = [1.0]\n',
            "routes: 'r' has weights, which only the strategy 'weighted' uses",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(text, expected):
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        PROVIDER + MODEL + 'fallbacks = ["local"]\n',
        ROUTE + 'candidates = ["p/m", "smollm2-135m"]\nfallbacks = ["local/smollm2-135m"]\n',
        PROVIDER + MODEL + PROVIDER.replace('"p"', '"q"') + MODEL.replace('"p"', '"q"'),
        '[server]\ngrpc = "unix:/run/trunkline.sock"\n',
        '[server]\ngrpc = "[::1]:1"\nhttp = "localhost:2"\n',
        '[server]\ngrpc = "0.0.0.0:1"\n[[keys]]\nid = "k"\nkey_env = "K"\n',
    ],
    ids=[
        "the embedded model as a fallback",
        "the embedded model by its id",
        "two deployments of one id",
        "a Unix socket",
        "loopback by other names",
        "other machines, with a key",
    ],
)
def test_what_goes_together_is_taken(text):
    read(text)


MODELS = PROVIDER + "".join(MODEL.replace('"m"', f'"{name}"') for name in "abc")


def panel(text: str, **more: str) -> str:
    """A route that is a panel; `more` in TOML."""
    lines = [f"{name} = {value}\n" for name, value in more.items()]
    return MODELS + f'[[routes]]\nid = "r"\npanel = {{ {text} }}\n' + "".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODELS + '[[routes]]\nid = "r"\n', "routes: 'r' needs candidates, or a panel"),
        (
            panel("size = 3", candidates='["a"]'),
            "routes: 'r': a panel names its proposers, not candidates",
        ),
        (
            panel('proposers = ["a", "b"], size = 3'),
            "routes: 'r': size is not the number of proposers",
        ),
        (
            panel('proposers = ["a", "b"], quorum = 3'),
            "routes: 'r': a quorum of 3 of 2 proposers is never reached",
        ),
        (
            panel("size = 2, quorum = 3"),
            "routes: 'r': a quorum of 3 of 2 proposers is never reached",
        ),
        (panel("quorum = 4"), "routes: 'r': a quorum of 4 of 3 proposers is never reached"),
        (
            panel('proposers = ["a", "bb"]'),
            "routes: 'r' names the unknown model 'bb'; did you mean 'b'?",
        ),
        (
            panel('aggregator = "p/cc"'),
            "routes: 'r' names the unknown model 'p/cc'; did you mean 'p/c'?",
        ),
        (panel("", escalate_to='"r"'), "routes: 'r' can't escalate to itself"),
        (panel("", escalate_to='"no"'), "routes: 'r': escalate_to: 'no' is no panel"),
        (
            panel("", escalate_to='"s"') + '[[routes]]\nid = "s"\ncandidates = ["a"]\n',
            "routes: 'r': escalate_to: 's' is no panel",
        ),
        (
            MODELS + '[[routes]]\nid = "r"\ncandidates = ["a"]\nescalate_to = "waymark-max"\n',
            "routes: 'r': only a panel escalates",
        ),
        (
            MODELS + '[[routes]]\nid = "r"\ncandidates = ["a"]\nescalate_on = []\n',
            "routes: 'r': only a panel escalates",
        ),
        (
            panel("proposer = []"),
            "unknown key routes[0].panel.'proposer'; did you mean 'proposers'?",
        ),
        (panel("size = 9"), "Expected `int` <= 8: routes[0].panel.size"),
        (panel("size = 0"), "Expected `int` >= 1: routes[0].panel.size"),
        (panel("quorum = 0"), "Expected `int` >= 1: routes[0].panel.quorum"),
        (panel("grace_share = -0.1"), "Expected `float` >= 0.0: routes[0].panel.grace_share"),
        (panel("grace_s = 61"), "Expected `float` <= 60.0: routes[0].panel.grace_s"),
        (panel("deadline_s = 0"), "Expected `float` >= 0.1: routes[0].panel.deadline_s"),
        (
            panel("proposal_tokens = 1"),
            "Expected `int` >= 16: routes[0].panel.proposal_tokens",
        ),
        (
            panel('optimize_for = "fun"'),
            "Invalid enum value 'fun': routes[0].panel.optimize_for",
        ),
        (
            panel('proposers = ["a", "a", "a", "a", "a", "a", "a", "a", "a"]'),
            "Expected `array` of length <= 8: routes[0].panel.proposers",
        ),
        (
            panel("", escalate_on='["boredom"]'),
            "Invalid enum value 'boredom': routes[0].escalate_on[0]",
        ),
        (panel("", max_escalations="5"), "Expected `int` <= 4: routes[0].max_escalations"),
    ],
    ids=count(),
)
def test_what_makes_no_panel_is_refused(text, expected):
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        panel(""),
        panel('proposers = ["a", "p/b", "local"], quorum = 3, aggregator = "c"'),
        panel('proposers = ["a", "a"], size = 2'),
        panel("size = 1", escalate_to='"waymark-max"', escalate_on="[]", max_escalations="0"),
        panel("", escalate_to='"s"', plans='["x"]')
        + '[[routes]]\nid = "s"\npanel = { grace_share = 0, grace_s = 0 }\n',
        panel("", id='"waymark-moa"', escalate_to='"waymark-max"').replace('id = "r"\n', ""),
    ],
    ids=[
        "defaults",
        "names",
        "one model twice",
        "one proposer",
        "another panel",
        "a default's name",
    ],
)
def test_what_makes_a_panel_is_taken(text):
    read(text)


def test_a_panel_has_what_is_not_said_from_its_defaults():
    (route,) = read(panel("size = 2", escalate_on='["cut", "empty"]')).routes

    assert route == RouteSettings(
        id="r",
        panel=PanelSettings(size=2),
        escalate_on=[Trigger.CUT, Trigger.EMPTY],
    )


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/a", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        (":1", False),
        ("10.0.0.1:1", False),
        ("localhost.evil.test:1", False),
        ("[::ffff:10.0.0.1]:1", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(address, found):
    assert is_loopback(address) is found


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("host.test:80", ("host.test", 80)),
        (":80", ("", 80)),
    ],
)
def test_an_address_is_host_and_port(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:-1", "host:65536", "h:1a", "h:٣", "h:" + "9" * 5_000]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError):
        split_address(address)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: None, "given.toml can't be read: No such file or directory"),
        (lambda: Path("given.toml").mkdir(), "given.toml can't be read: Is a directory"),
        (lambda: Path("given.toml").write_bytes(b"a = "), "given.toml is no TOML: "),
        (lambda: Path("given.toml").write_bytes(b"a = '\xff'"), "given.toml is no TOML: "),
        (
            lambda: Path("given.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1)),
            f"given.toml is larger than {MAX_FILE_BYTES} bytes",
        ),
    ],
    ids=["none", "a directory", "half a line", "no UTF-8", "too large"],
)
def test_a_file_that_can_not_be_read_is_said(make, expected):
    make()

    with pytest.raises(ConfigError) as caught:
        load("given.toml", {}, {})

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(expected)


def test_a_secret_is_found_by_reference():
    Path("key").write_text(" sk-of-file\n")

    assert secret({"KEY": " sk-of-variable "}, "KEY", "") == "sk-of-variable"
    assert secret({"KEY": "sk-of-variable"}, "KEY", "key") == "sk-of-file"
    assert secret({}, "KEY", "") == ""


@pytest.mark.parametrize(
    "value",
    ["s" * (MAX_SECRET_CHARS + 1), "a\nb", "clé", "a\x00b"],
    ids=["too long", "two lines", "not ASCII", "a control character"],
)
def test_what_no_header_can_carry_is_no_secret_and_is_not_shown(value):
    with pytest.raises(ConfigError) as caught:
        secret({"KEY": value}, "KEY", "")

    assert caught.value.problems == [
        "the secret in KEY is too long or holds characters that no header can carry"
    ]


def test_a_secret_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError) as caught:
        secret({}, "", "no-such-file")

    assert caught.value.problems == [
        "the secret file no-such-file can't be read: FileNotFoundError"
    ]


def test_settings_hold_references_and_no_secrets():
    settings = read(
        '[[keys]]\nid = "k"\nkey_env = "K"\n' + PROVIDER + 'api_key_env = "P"\n',
        {"K": "canary", "P": "canary"},
    )

    assert settings.keys == [KeySettings(id="k", key_env="K")]
    assert "canary" not in repr(settings)
