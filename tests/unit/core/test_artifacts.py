"""What is made of an answer's text is the same however it comes, bounded, and nothing but what is written there."""

import time
from itertools import count
from random import Random

import pytest

from trunkline.v1.message_pb2 import Artifact
from trunkline_server.core.artifacts import (
    CODE,
    DOCUMENT,
    MAX_ARTIFACT_CHARS,
    MAX_ARTIFACTS,
    ArtifactScanner,
)

BOTH = frozenset({CODE, DOCUMENT})


def scan(pieces: list[str], kinds: frozenset[str] = BOTH) -> list[Artifact]:
    ids = count(1)
    scanner = ArtifactScanner(kinds, lambda: str(next(ids)))
    made = [artifact for piece in pieces for artifact in scanner.feed(piece)]
    return made + scanner.end()


def code(number: int, language: str, title: str, text: str, mime_type: str = "text/plain"):
    return Artifact(
        id=f"art_{number}",
        type="code",
        title=title,
        mime_type=mime_type,
        text=text,
        language=language,
        size_bytes=len(text.encode()),
    )


ANSWER = """Two files, and how to run them:

```python title="src/gréet.py"
def greet(name):
    return f"Hé {name}"

```

1. Install it:
   ~~~sh
   pip install greet
     --quiet
   ~~~
2. A block in a block:

````markdown
```js
run()
```
````
And the last one, cut off:
```json
{"a": 1,
"""
ARTIFACTS = [
    code(1, "python", "src/gréet.py", 'def greet(name):\n    return f"Hé {name}"\n\n'),
    code(2, "sh", "pip install greet", "pip install greet\n  --quiet\n"),
    code(3, "markdown", "```js", "```js\nrun()\n```\n", "text/markdown"),
    code(4, "json", '{"a": 1,', '{"a": 1,\n\n', "application/json"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_the_same_blocks_are_found_however_the_text_is_cut(size):
    pieces = [ANSWER[i : i + size] for i in range(0, len(ANSWER), size)]

    assert scan(pieces) == ARTIFACTS


def test_a_block_is_handed_on_as_soon_as_its_last_line_has_come():
    scanner = ArtifactScanner(BOTH, lambda: "1")

    assert scanner.feed("```py\nx = 1\n``") == []
    assert scanner.feed("`") == []
    assert scanner.feed("\nand") == [code(1, "py", "x = 1", "x = 1\n")]
    assert scanner.end() == []


@pytest.mark.parametrize(
    ("head", "language", "title"),
    [
        ("```ts src/main.ts\nlet a\n", "ts", "src/main.ts"),
        ("```rust:src/lib.rs\nlet a\n", "rust", "src/lib.rs"),
        ("```js {filename='a b.js'}\nlet a\n", "js", "a b.js"),
        ("```\n\n# app/views.py\nlet a\n", "", "app/views.py"),
        ("```c\n/* main.c */\nlet a\n", "c", "main.c"),
        ("```c\n// what it does\nlet a\n", "c", "// what it does"),
        ("```\r\n" + "x" * 100 + "\r\n", "", "x" * 79 + "…"),
        ("```" + "y" * 40 + "\nlet a\n", "y" * 32, "let a"),
    ],
)
def test_a_title_is_a_file_name_or_the_first_line(head, language, title):
    (artifact,) = scan([head])

    assert (artifact.language, artifact.title) == (language, title)


@pytest.mark.parametrize(
    "text",
    [
        "no code, `inline` only",
        "``` not a `fence`\ntext\n",
        "```py\n```\n",
        "```py\n \n\t\n```\n",
        "a ```py\nx\n",
        "# A heading\n\nshort\n\n## Another\n",
        "# One heading\n\n" + "long " * 400,
        "long " * 400 + "\n#no space\n####### seven\n# \n",
    ],
)
def test_what_is_neither_a_block_nor_a_document_makes_nothing(text):
    assert scan([text]) == []


def test_a_long_answer_with_headings_is_a_document_too():
    text = (
        "# The plan ##\n\n" + "word " * 300 + "\n\n```py\n# Not a heading\n```\n\n## Costs\n\nend"
    )

    found = scan([text])

    assert found == [
        code(1, "py", "# Not a heading", "# Not a heading\n"),
        Artifact(
            id="art_2",
            type="document",
            title="The plan",
            mime_type="text/markdown",
            text=text,
            size_bytes=len(text),
        ),
    ]
    assert scan([text], frozenset({DOCUMENT})) == [
        Artifact(
            id="art_1",
            type="document",
            title="The plan",
            mime_type="text/markdown",
            text=text,
            size_bytes=len(text),
        )
    ]
    assert [a.type for a in scan([text], frozenset({CODE}))] == ["code"]
    assert scan([text], frozenset()) == []


def test_no_more_is_held_than_the_limits_say():
    block = "```\nx\n```\n"
    assert len(scan([block * (MAX_ARTIFACTS + 5)])) == MAX_ARTIFACTS

    fits = "x" * (MAX_ARTIFACT_CHARS - 1) + "\n"
    assert scan(["```\n", fits, "```\n"]) == [code(1, "", "x" * 79 + "…", fits)]
    # Neither a long line nor many of them, and what comes after is found all the same.
    assert [a.text for a in scan(["```\nx", fits, "```\n", block])] == ["x\n"]
    assert [
        a.text for a in scan(["```\n", "x\n" * (MAX_ARTIFACT_CHARS // 2), "y\n```\n", block])
    ] == ["x\n"]
    total = scan([f"```\n{fits}```\n" * 6])
    assert [a.size_bytes for a in total] == [MAX_ARTIFACT_CHARS] * 4


def test_any_text_gives_the_same_cut_anywhere():
    random = Random(7)
    words = [
        "```",
        "~~~",
        "````",
        "`",
        "\n",
        "\r\n",
        "# a",
        "## b",
        " ",
        "  ",
        "x",
        "py",
        "é",
        "\t",
    ]
    for _ in range(300):
        text = "".join(random.choices(words, k=random.randrange(40))) + "word " * 300
        whole = scan([text])
        for size in (1, random.randrange(2, 30)):
            assert scan([text[i : i + size] for i in range(0, len(text), size)]) == whole


@pytest.mark.parametrize(
    "unit", ["```\nx\n", "`", "~", "# a # ", "\n", "// ", "```a `", " ", "#", "```x title='"]
)
def test_twice_the_text_takes_about_twice_the_time(unit):
    def seconds(times: int) -> float:
        text = unit * times
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            scan([text])
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(30_000) < 40 * seconds(3_000) + 0.01
