"""What could run a script is refused, whatever it looks like."""

import time

import pytest

from trunkline_server.genui.safety import (
    is_safe_anywhere,
    is_safe_image,
    is_safe_key,
    is_safe_markdown,
    is_safe_url,
)

SCRIPTS = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "java\x00script:alert(1)",
    "javascript\u200b:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:image/svg+xml;base64,PHN2Zz4=",
    "data:,x",
]


@pytest.mark.parametrize(
    "text",
    [
        *[
            "https://a.example",
            "http://a.example:8080/b?c=d#e f",
            "HTTPS://A.example/",
            "mailto:a@b.example",
        ],
        *["tel:+491234", "/path", "./a", "../a/b", "?q=javascript:1", "#top", "page.html", "a/b:c"],
    ],
)
def test_addresses_that_lead_somewhere_are_safe(text):
    assert is_safe_url(text)
    assert is_safe_anywhere(text)


@pytest.mark.parametrize(
    "text",
    [
        *SCRIPTS,
        *[
            "",
            " ",
            "javascript&colon;alert(1)",
            "javascript%3Aalert(1)",
            "blob:https://a",
            "file:///etc/passwd",
        ],
        *[
            "ftp://a",
            "https:",
            "https://",
            "https:///x",
            "a b:c",
            "x:y",
            "\\\\evil",
            "h" * 8_001,
        ],
    ],
)
def test_other_addresses_are_not(text):
    assert not is_safe_url(text)
    assert not is_safe_image(text)


def test_images_are_addresses_or_pixels():
    assert is_safe_image("https://a.example/x.svg")
    assert is_safe_image("data:image/png;base64,iVBORw0KGgo=")
    assert not is_safe_image('data:image/png;base64,iVB"><script>')
    assert not is_safe_image("mailto:a@b.example")


@pytest.mark.parametrize("text", SCRIPTS)
def test_where_nobody_knows_what_is_made_of_it_a_script_is_refused(text):
    assert not is_safe_anywhere(text)


@pytest.mark.parametrize(
    "text",
    [
        "# A *b* `c`\n\n- 1 < 2 and 3 > 2, <3\n- [a](https://b.example/c?d=e) ![i](/x.png)\n",
        "<https://a.example/b> x<br>y<br/> H<sub>2</sub>O </p>",
        "[WARN]: disk is full, 50% [1]: 2 f[0](x, y)\n[ref]: https://a.example 'T'",
        "JavaScript: the good parts",
        "",
    ],
)
def test_markdown_without_html_is_safe(text):
    assert is_safe_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "<script>alert(1)</script>",
            "<SCRIPT src=//x>",
            "a <img src=x onerror=alert(1)>",
            "<svg/onload=alert(1)>",
        ],
        *[
            "<b onclick=alert(1)>x</b>",
            "<iframe>",
            "</script>",
            "<!--",
            "<?xml",
            "<a href='javascript:1'>",
            "<img",
        ],
        *[
            "<scr\x00ipt>",
            "<style>",
            "<x-y>",
            "<https://a b>",
            "<javascript:alert(1)>",
            "<http://a onclick=1>",
        ],
        *[
            "[a](javascript:alert(1))",
            "[a]( javascript:alert(1))",
            "![a](JAVASCRIPT:1)",
            "[a](<javascript:1>)",
        ],
        *[
            "[a](javascript&colon;alert(1))",
            "[a](&#106;avascript:1)",
            "[a](java\\script:1)",
            "[r]: javascript:1",
        ],
        *[
            "[r]:\n javascript:1",
            "[r]:\r\njavascript:1",
            "[a](< javascript:1>)",
            "[a](<\n\tjavascript:1>)",
            "[a](data:text/html;base64,x)",
            "[a](vbscript:1)",
            "[a](\njavascript:1)",
        ],
        *[
            "> [r]:\n> javascript:1",
            "> > [r]:\r\n> > <javascript:1>",
            "> [a](\n> javascript:1)",
            "- > [a](\n  > < javascript:1>)",
        ],
    ],
)
def test_markdown_that_could_run_something_is_not(text):
    assert not is_safe_markdown(text)
    assert not is_safe_anywhere(text)


def test_names_of_what_is_run_are_no_keys():
    keys = [
        "onclick",
        "onClick",
        "onError",
        "onload",
        "onmouseover",
        "onpointerdown",
        "__proto__",
        "constructor",
    ]
    assert [
        k for k in [*keys, "innerHTML", "dangerouslySetInnerHTML", "srcdoc"] if is_safe_key(k)
    ] == []
    fine = [
        "on",
        "once",
        "only",
        "online",
        "ongoing",
        "option",
        "name",
        "value",
        "onboarding",
        "proto",
    ]
    assert [k for k in fine if not is_safe_key(k)] == []


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a",
        "<b>",
        "](",
        "](  ",
        "]: \n",
        "[a]: ",
        "](<",
        "](\n> ",
        "]:\n>",
        "https://",
        "java\n",
        "onclick",
        "</",
        "<br ",
    ],
)
def test_twice_the_text_takes_about_twice_the_time(unit):
    def seconds(times: int) -> float:
        text = unit * times
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            is_safe_anywhere(text)
            is_safe_image(text)
            is_safe_key(text)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(40_000) < 40 * seconds(4_000) + 0.01
