"""Skills over every door: named by a request, taken up by a model, fitting a question, listed and installed."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import msgspec
import pytest

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import LIMIT_S, Streamed, spec, stream
from tests.edges.test_server_tools import Model, calls, once
from tests.support.service import SETTINGS, model, provider, service
from tests.support.upstream import Upstream, answer, hello, upstream
from trunkline import AsyncClient, Client
from trunkline.v1.catalog_service_pb2 import (
    InstallSkillRequest,
    ListSkillsRequest,
    UninstallSkillRequest,
)
from trunkline.v1.catalog_service_pb2 import Skill as SkillMessage
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_event_pb2 import SkillsActivated
from trunkline.v1.completion_pb2 import (
    RouteReason,
    ServerToolState,
    SkillActivation,
)
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline.v1.completion_spec_pb2 import (
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
)
from trunkline_server.app import Service, build
from trunkline_server.cli import main
from trunkline_server.config import ConfigError, Settings
from trunkline_server.skills.activation import DESCRIPTION
from trunkline_server.skills.folder import BUNDLED, load

pytestmark = pytest.mark.once

SHIPPED: Final = {loaded.skill.slug: loaded for loaded in load(BUNDLED, None)}
REVIEW: Final = SHIPPED["code-review"].skill
MINUTES: Final = SHIPPED["meeting-minutes"].skill
ARITHMETIC: Final = SHIPPED["checked-arithmetic"].skill
ENVIRONMENT: Final = {"ACME": "key-of-acme", "OTHER": "key-of-other"}
STARTED: Final = ServerToolState.SERVER_TOOL_STATE_STARTED
SUCCEEDED: Final = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED


def headers(owner: str) -> tuple[tuple[str, str], ...]:
    """As somebody of this organisation sends them."""
    return (("authorization", f"Bearer {ENVIRONMENT[owner.upper()]}"),)


@dataclass
class Desk:
    """A service with two organisations, and its models."""

    service: Service
    model: Upstream
    channel: grpc.aio.Channel

    @property
    def catalog(self) -> Any:
        """As its callers have it."""
        return CatalogServiceStub(self.channel)

    async def install(self, *slugs: str, owner: str = "acme") -> None:
        """For all requests of this organisation."""
        for slug in slugs:
            await self.catalog.InstallSkill(
                InstallSkillRequest(slug=slug), metadata=headers(owner), timeout=LIMIT_S
            )

    async def ask(self, text: str = "hi", owner: str = "acme", **fields: Any) -> Streamed:
        """Of the model `m`, unless another one is named."""
        asked = spec(fields.pop("model", "m"), text, **fields)
        options = StreamOptions(include_final_messages=True)
        return await stream(self.service, asked, options, metadata=headers(owner))

    def told(self, number: int = 0) -> list[dict[str, Any]]:
        """The messages of one request to the model."""
        messages: list[dict[str, Any]] = self.model.exchanges[number].json["messages"]
        return messages

    def tools(self, number: int = 0) -> dict[str, Any]:
        """The tools of one request to the model, by name."""
        found = self.model.exchanges[number].json.get("tools", [])
        return {tool["function"]["name"]: tool["function"] for tool in found}


@asynccontextmanager
async def desk(script: Model | None = None, **sections: Any) -> AsyncIterator[Desk]:
    """Models `m`, `n` and `o`, of which `o` calls no tools. Without a script they say hello."""
    count = 0

    def turn(exchange: Any) -> Any:
        nonlocal count
        count += 1
        return hello(exchange) if script is None else script(count - 1, exchange)

    async with upstream(turn) as good:
        found: dict[str, Any] = {
            "providers": [provider("a", good.url)],
            "models": [model("m", "a"), model("n", "a"), model("o", "a", capabilities=["vision"])],
            "keys": [
                {"id": name, "key_env": name.upper(), "organization": name}
                for name in ("acme", "other")
            ],
            **sections,
        }
        async with (
            service(environment=ENVIRONMENT, **found) as running,
            grpc.aio.insecure_channel(running.grpc_address) as channel,
        ):
            yield Desk(running, good, channel)


def write(
    root: Path, name: str, *lines: str, description: str = "Does it.", text: str = "Do it."
) -> str:
    """A skill in a folder of skills, with these fields of its metadata. Gives that folder."""
    (root / name).mkdir(parents=True)
    fields = ["---", f"name: {name}", f"description: {description}", "metadata:", "  x: y"]
    fields += [f"  {line}" for line in lines]
    (root / name / "SKILL.md").write_text("\n".join([*fields, "---", text]))
    return str(root)


def activated(found: Streamed) -> list[SkillsActivated]:
    """What was told of skills."""
    return [e.skills_activated for e in found.events if e.HasField("skills_activated")]


def activate(call_id: str, slug: str, **more: str) -> tuple[str, str, str]:
    """A call of the tool."""
    return call_id, "activate_skill", json.dumps({"skill": slug, **more})


PLAIN: Final = {"id": "fast", "follow_ups": False}
TOLD_REVIEW: Final = SkillActivation(
    id="code-review", slug="code-review", name="Code review", intensity=2
)
TOLD_MINUTES: Final = SkillActivation(
    id="meeting-minutes", slug="meeting-minutes", name="Meeting minutes", intensity=1
)
TOLD_ARITHMETIC: Final = SkillActivation(
    id="checked-arithmetic", slug="checked-arithmetic", name="Checked arithmetic"
)


# Named


async def test_named_skills_stand_in_the_prompt_in_their_order_and_are_told():
    async with desk() as found:
        streamed = await found.ask(
            skills=["meeting-minutes", "code-review"], system_prompt="Be kind."
        )

    assert found.told()[0]["content"] == (
        f"Be kind.\n\n<skill>\n{MINUTES.instructions}\n</skill>"
        f"\n\n<skill>\n{REVIEW.instructions}\n</skill>"
    )
    assert activated(streamed) == [SkillsActivated(skills=[TOLD_MINUTES, TOLD_REVIEW])]
    assert list(streamed.events[-1].completed.completion.skills) == [TOLD_MINUTES, TOLD_REVIEW]
    assert streamed.kinds.index("skills_activated") < streamed.kinds.index("text_delta")


async def test_a_skill_brings_its_tools_along():
    script = once(calls(("c1", "calculator", '{"expression": "6 * 7"}')), answer("42"))
    async with desk(script) as found:
        streamed = await found.ask("6 times 7?", skills=["checked-arithmetic"])

    assert streamed.text == "42"
    assert list(found.tools()) == ["calculator"]
    assert found.told(1)[-1] == {"role": "tool", "tool_call_id": "c1", "content": "42"}


async def test_for_a_model_without_tools_a_skill_comes_without_its_own():
    async with desk() as found:
        streamed = await found.ask(model="o", skills=["checked-arithmetic"])

    assert streamed.error is None
    assert found.tools() == {}
    assert found.told()[0]["content"] == f"<skill>\n{ARITHMETIC.instructions}\n</skill>"


async def test_a_skill_may_say_who_should_answer_unless_the_caller_does(tmp_path):
    folder = write(tmp_path, "picky", "models: nobody-knows-it n")
    async with desk(skills={"directory": folder}, modes=[PLAIN]) as found:
        streamed = await found.ask(model="", mode="fast", skills=["picky"])
        named = await found.ask(model="m", skills=["picky"])

    route = streamed.events[-1].completed.completion.route
    assert (route.model, route.reason) == ("n", RouteReason.ROUTE_REASON_SKILL_PREFERENCE)
    route = named.events[-1].completed.completion.route
    assert (route.model, route.reason) == ("m", RouteReason.ROUTE_REASON_REQUESTED)


async def test_what_belongs_to_a_named_skill_can_be_read():
    script = once(
        calls(activate("c1", "code-review", resource="references/checklist.md")), answer("Fine.")
    )
    async with desk(script) as found:
        streamed = await found.ask(skills=["code-review"])

    assert (
        found.told(1)[-1]["content"] == SHIPPED["code-review"].resources["references/checklist.md"]
    )
    # It is active already, and reading a file of it is no activation.
    assert activated(streamed) == [SkillsActivated(skills=[TOLD_REVIEW])]


@pytest.mark.parametrize(
    ("named", "field", "hint"),
    [
        (["code-review", "code-reviw"], "spec.skills[1]", "did you mean 'code-review'?"),
        (["nothing-like-it"], "spec.skills[0]", "no skill is called 'nothing-like-it'"),
        (["../code-review"], "spec.skills[0]", "must match"),
    ],
)
async def test_skills_that_can_not_be_had_are_refused_by_their_field(named, field, hint):
    async with desk() as found:
        streamed = await found.ask(skills=named)

    assert reason_of(streamed.error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields_of(streamed.error) == [field]
    assert hint in str(streamed.error.details() if streamed.error else "")
    assert found.model.exchanges == []


# Installed


async def test_a_model_takes_up_an_installed_skill_and_has_its_tools_from_then_on():
    script = once(
        calls(activate("c1", "checked-arithmetic"), text="Let me see. "),
        calls(("c2", "calculator", '{"expression": "6 * 7"}')),
        answer("42."),
    )
    async with desk(script) as found:
        await found.install("checked-arithmetic", "meeting-minutes")
        streamed = await found.ask("6 times 7?")

    offered = found.tools()["activate_skill"]
    assert offered["description"] == DESCRIPTION
    assert offered["parameters"]["properties"]["skill"]["enum"] == [
        "checked-arithmetic",
        "meeting-minutes",
    ]
    assert [m["role"] for m in found.told()] == ["user"]
    assert found.told(1)[-1]["content"] == ARITHMETIC.instructions
    assert [list(found.tools(n)) for n in range(3)] == [
        ["activate_skill"],
        ["activate_skill", "calculator"],
        ["activate_skill", "calculator"],
    ]
    # What the caller sees
    assert streamed.text == "Let me see. 42."
    told = [
        (event.server_tool_call.name, event.server_tool_call.state)
        if event.HasField("server_tool_call")
        else event.skills_activated
        for event in streamed.events
        if event.WhichOneof("event") in ("server_tool_call", "skills_activated")
    ]
    assert told == [
        ("activate_skill", STARTED),
        ("activate_skill", SUCCEEDED),
        SkillsActivated(skills=[TOLD_ARITHMETIC]),
        ("calculator", STARTED),
        ("calculator", SUCCEEDED),
    ]
    completion = streamed.events[-1].completed.completion
    assert list(completion.skills) == [TOLD_ARITHMETIC]
    assert [call.name for call in completion.server_tool_calls] == ["activate_skill", "calculator"]


async def test_a_skill_that_is_taken_up_twice_is_active_once_and_after_the_named_ones():
    script = once(
        calls(activate("c1", "meeting-minutes"), activate("c2", "meeting-minutes")),
        calls(activate("c3", "meeting-minutes")),
        answer("Done."),
    )
    async with desk(script) as found:
        await found.install("meeting-minutes", "checked-arithmetic")
        streamed = await found.ask(skills=["checked-arithmetic"])

    assert activated(streamed) == [
        SkillsActivated(skills=[TOLD_ARITHMETIC]),
        SkillsActivated(skills=[TOLD_MINUTES]),
    ]
    completion = streamed.events[-1].completed.completion
    assert list(completion.skills) == [TOLD_ARITHMETIC, TOLD_MINUTES]


async def test_a_skill_that_was_not_offered_is_not_taken_up():
    script = once(calls(activate("c1", "code-review")), answer("Well."))
    async with desk(script) as found:
        await found.install("meeting-minutes")
        streamed = await found.ask()

    completion = streamed.events[-1].completed.completion
    assert [(c.name, c.state) for c in completion.server_tool_calls] == [
        ("activate_skill", ServerToolState.SERVER_TOOL_STATE_FAILED)
    ]
    assert activated(streamed) == list(completion.skills) == []


async def test_long_instructions_reach_the_model_whole(tmp_path):
    text = "Do it. " * 2_857
    folder = write(tmp_path, "long", text=text)
    script = once(calls(activate("c1", "long")), answer("Done."))
    async with desk(script, skills={"directory": folder}) as found:
        await found.install("long")
        await found.ask()

    assert found.told(1)[-1]["content"] == text.strip()


async def test_nothing_is_offered_where_it_would_change_what_the_caller_asked_for():
    mine = Tool(name="mine", parameters_schema_json="{}")
    own = Tool(name="activate_skill", description="Mine.", parameters_schema_json="{}")
    named = ToolChoice(tool_name="mine")
    must = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)
    may = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO)
    async with desk() as found:
        await found.install("meeting-minutes")
        for options in (
            ToolOptions(tools=[mine], choice=named),
            ToolOptions(tools=[mine], choice=must),
            ToolOptions(tools=[mine], choice=ToolChoice(allowed_tool_names=["mine"])),
            ToolOptions(tools=[own]),
            ToolOptions(tools=[mine], choice=may),
        ):
            assert (await found.ask(tool_options=options)).error is None
        await found.ask(sampling=SamplingOptions(candidate_count=2))

    assert [list(found.tools(n)) for n in range(6)] == [
        ["mine"],
        ["mine"],
        ["mine"],
        ["activate_skill"],
        ["mine", "activate_skill"],
        [],
    ]
    assert found.tools(3)["activate_skill"]["description"] == "Mine."


async def test_the_callers_own_tool_wins_over_one_that_a_skill_brings_along():
    script = once(calls(activate("c1", "checked-arithmetic")), answer("Done."))
    own = Tool(name="calculator", description="Mine.", parameters_schema_json="{}")
    async with desk(script) as found:
        await found.install("checked-arithmetic")
        streamed = await found.ask(tool_options=ToolOptions(tools=[own]))

    assert list(streamed.events[-1].completed.completion.skills) == [TOLD_ARITHMETIC]
    assert [t["description"] for name, t in found.tools(1).items() if name == "calculator"] == [
        "Mine."
    ]
    assert list(found.tools(1)) == ["calculator", "activate_skill"]


async def test_an_operators_tool_joins_with_its_schema(tmp_path):
    parameters = {
        "type": "object",
        "properties": {"expression": {"type": "string", "maxLength": 3}},
    }
    registered = {"name": "sum", "description": "Adds.", "builtin": "calculator"}
    folder = write(tmp_path, "adding", "tools: sum")
    script = once(
        calls(activate("c1", "adding")),
        calls(("c2", "sum", '{"expression": "1 + 1"}'), ("c3", "sum", '{"expression": "1+1"}')),
        answer("2"),
    )
    sections = {
        "tools": [{**registered, "parameters": parameters}],
        "skills": {"directory": folder, "bundled": False},
    }
    async with desk(script, **sections) as found:
        await found.install("adding")
        streamed = await found.ask()

    assert found.tools(1)["sum"]["parameters"] == parameters
    assert streamed.error is None
    assert [m["content"][:22] for m in found.told(2)[-2:]] == ["This call was not made", "2"]


async def test_for_a_model_without_tools_what_fits_is_added():
    async with desk() as found:
        await found.install("meeting-minutes", "code-review", "checked-arithmetic")
        fits = await found.ask("Summarise this meeting transcript", model="o")
        none = await found.ask("Who wrote Faust?", model="o")

    assert activated(fits) == [SkillsActivated(skills=[TOLD_MINUTES])]
    assert activated(none) == []
    assert [m["role"] for m in found.told(1)] == ["user"]
    assert found.told(0)[0]["content"] == f"<skill>\n{MINUTES.instructions}\n</skill>"
    assert found.tools(0) == found.tools(1) == {}


async def test_of_more_than_thirty_those_are_offered_that_fit_best(tmp_path):
    for n in range(40):
        write(tmp_path, f"s{n:02}", description=f"Paints fence number {n}, and nothing else.")
    write(tmp_path, "waltz", description="Explains the steps of a waltz to dancers.")
    async with desk(skills={"directory": str(tmp_path), "bundled": False}) as found:
        await found.install(*(f"s{n:02}" for n in range(40)), "waltz")
        await found.ask("Which steps does a waltz have?")

    offered = found.tools()["activate_skill"]["parameters"]["properties"]["skill"]["enum"]
    assert offered[0] == "waltz"
    assert len(offered) == len(set(offered)) == 30


async def test_a_skill_that_is_named_is_not_offered_too():
    async with desk() as found:
        await found.install("meeting-minutes")
        await found.ask(skills=["meeting-minutes"])
        await found.ask("Summarise this meeting transcript", model="o", skills=["meeting-minutes"])

    assert (found.tools(0), found.tools(1)) == ({}, {})
    assert found.told(0)[0]["content"] == f"<skill>\n{MINUTES.instructions}\n</skill>"
    assert found.told(1)[0] == found.told(0)[0]


async def test_an_organisations_skills_are_its_own():
    async with desk() as found:
        await found.install("code-review", owner="other")
        await found.ask()
        await found.ask(owner="other")

    assert (list(found.tools(0)), list(found.tools(1))) == ([], ["activate_skill"])


# Listed


async def listed(found: Desk, owner: str, **fields: Any) -> tuple[Sequence[SkillMessage], str]:
    """One page, and the token of the next one."""
    request = ListSkillsRequest(**fields)
    page = await found.catalog.ListSkills(request, metadata=headers(owner), timeout=LIMIT_S)
    return list(page.skills), page.next_page_token


async def test_skills_are_listed_with_what_the_callers_organisation_has_installed(tmp_path):
    folder = write(tmp_path, "code-review", "version: '2'", "title: Ours", "category: own")
    async with desk(skills={"directory": folder}) as found:
        await found.install("code-review")
        first, token = await listed(found, "acme", page_size=2)
        rest, end = await listed(found, "acme", page_size=2, page_token=token)
        others, _ = await listed(found, "other")
        gone = await found.catalog.UninstallSkill(
            UninstallSkillRequest(slug="code-review"), metadata=headers("acme"), timeout=LIMIT_S
        )
        after, _ = await listed(found, "acme")
        await found.ask()

    assert [(s.slug, s.installed) for s in first] == [
        ("checked-arithmetic", False),
        ("code-review", True),
    ]
    # One's own stands in for the one that ships.
    assert first[1] == SkillMessage(
        id="code-review",
        slug="code-review",
        name="Ours",
        description="Does it.",
        category="own",
        version=first[1].version,
        installed=True,
    )
    assert first[1].version.startswith("2+")
    assert ([s.slug for s in rest], end) == (["meeting-minutes"], "")
    assert [s.installed for s in others] == [s.installed for s in after] == [False] * 3
    assert gone.skill.installed is False
    assert found.tools() == {}


async def test_errors_of_installing_name_what_is_wrong():
    async with desk() as found:
        errors = []
        for method, request in (
            (found.catalog.InstallSkill, InstallSkillRequest(slug="nothing")),
            (found.catalog.InstallSkill, InstallSkillRequest()),
            (found.catalog.UninstallSkill, UninstallSkillRequest(slug="code-review")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(request, metadata=headers("acme"), timeout=LIMIT_S)
            errors.append(reason_of(refused.value))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await found.catalog.InstallSkill(
                InstallSkillRequest(slug="code-review"), timeout=LIMIT_S
            )

    assert errors == [(grpc.StatusCode.NOT_FOUND, "NOT_FOUND")] * 3
    assert reason_of(refused.value) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_skills_that_can_not_be_used_stop_the_server_with_their_files(tmp_path):
    folder = write(tmp_path, "a", "tools: nothing")
    write(tmp_path, "b", "version: [1]")
    settings = msgspec.convert({**SETTINGS, "skills": {"directory": folder}}, Settings)

    with pytest.raises(ConfigError) as refused:
        build(settings, {})

    problem = "metadata.tools: no tool is registered as 'nothing', and no builtin is it"
    assert refused.value.problems == [
        f"skills: {folder}/a/SKILL.md: {problem}",
        f"skills: {folder}/b/SKILL.md: version: is no text",
    ]


async def test_over_theos_api_a_skill_that_a_model_takes_up_is_told_of():
    script = once(calls(activate("c1", "meeting-minutes")), answer("Done."))
    async with desk(script, modes=[PLAIN]) as found:
        http = f"http://{found.service.http_address}"
        async with httpx.AsyncClient(headers=dict(headers("acme")), timeout=LIMIT_S) as client:
            made = await client.post(f"{http}/api/v1/skills/meeting-minutes")
            body = {"prompt": "hi", "mode": "fast", "stream": True}
            response = await client.post(f"{http}/api/v1/completions", json=body)

    assert made.is_success
    events = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    assert "skills" in events
    assert events[-1] == "done"


# From the clients and the command line


async def test_both_clients_list_install_and_take_away():
    async with desk() as found:
        target, key = found.service.grpc_address, ENVIRONMENT["ACME"]

        def blocking() -> list[Any]:
            with Client(target, api_key=key) as client:
                return [
                    client.install_skill("code-review"),
                    [skill.installed for skill in client.list_skills(page_size=1)],
                    client.uninstall_skill("code-review"),
                    [skill.installed for skill in client.list_skills()],
                ]

        async def awaited() -> list[Any]:
            async with AsyncClient(target, api_key=key) as client:
                return [
                    await client.install_skill("code-review"),
                    [skill.installed async for skill in client.list_skills(page_size=1)],
                    await client.uninstall_skill("code-review"),
                    [skill.installed async for skill in client.list_skills()],
                ]

        answers = [await asyncio.to_thread(blocking), await awaited()]

    message = SkillMessage(
        id="code-review",
        slug="code-review",
        name="Code review",
        description=REVIEW.description,
        category="code",
        version=REVIEW.version,
    )
    installed = SkillMessage()
    installed.CopyFrom(message)
    installed.installed = True
    assert answers == [[installed, [False, True, False], message, [False] * 3]] * 2


async def test_the_command_lists_shows_installs_and_takes_away(capsys, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_API_KEY", ENVIRONMENT["ACME"])

    async def run(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["skills", *words, "--target", target])
        said = capsys.readouterr()
        return code, said.out, said.err

    async with desk() as found:
        target = found.service.grpc_address
        done = [
            await run("install", "code-review"),
            await run("list"),
            await run("show", "code-review"),
            await run("uninstall", "code-review"),
            await run("uninstall", "code-review"),
            await run("show", "nothing"),
        ]
        code, lines, _ = await run("list", "--json")

    told = "code-review is installed: it may join every request of your organisation\n"
    assert done[0] == (0, told, "")
    assert [line.split()[0::4] for line in done[1][1].splitlines()[:1]] == [["slug", "installed"]]
    assert [line.split()[-1] for line in done[1][1].splitlines()[1:]] == ["no", "yes", "no"]
    shown = (
        f"Code review (code-review)\n{REVIEW.description}\ncategory:  code\n"
        f"version:   {REVIEW.version}\ninstalled: yes\n"
    )
    assert done[2] == (0, shown, "")
    assert done[3] == (0, "code-review is not installed any more\n", "")
    assert done[4][:2] == (1, "")
    assert "no skill that is installed has this slug" in done[4][2]
    assert done[5] == (
        2,
        "",
        "trunkline: no skill is called nothing; see `trunkline skills list`\n",
    )
    assert code == 0
    assert [json.loads(line)["slug"] for line in lines.splitlines()] == list(SHIPPED)


def test_a_folder_is_checked_without_a_service(tmp_path, capsys):
    folder = write(tmp_path, "fine", "tools: whatever")
    assert main(["skills", "check", folder]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("fine ")
    assert said[0].endswith(": 6 characters; tools whatever")
    assert said[1:] == ["nothing is wrong with 1 of 1"]

    write(tmp_path, "bad", "version: [1]")
    assert main(["skills", "check", folder]) == 2
    assert capsys.readouterr().err == f"trunkline: {folder}/bad/SKILL.md: version: is no text\n"
