"""Checks an answer in OpenUI Lang against a library of components while it comes.

What is passed on was parsed, checked and written anew, a statement a line: nobody can read something else in it than
what was checked. A mistake costs the smallest part that can be left out: an optional argument, an item of a list, a
component, a statement.

A name may be used before it is defined. What such a use demands is remembered, and its definition checked against it;
that is why no definition can undo what was passed on before. Where a parameter takes an address, an image or Markdown,
only what is known from the text is let through, for anything could be put together when it is shown.

Source of the language's rules: https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0), read 2026-11-22.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Final, TypeVar

from trunkline.v1.completion_pb2 import CompletionWarning
from trunkline_server.genui.component import Component
from trunkline_server.genui.parser import TooDeep, Unreadable, parse
from trunkline_server.genui.safety import (
    is_safe_anywhere,
    is_safe_image,
    is_safe_key,
    is_safe_markdown,
    is_safe_url,
)
from trunkline_server.genui.slots import (
    ACTION,
    AN_ACTION,
    AN_ADDRESS,
    AN_ENTRY,
    ANY,
    ANY_COMPONENT,
    BOOLEAN,
    ENTRY,
    IMAGE,
    INTEGER,
    MARKDOWN,
    NUMBER,
    OBJECT,
    SCALAR,
    STATE,
    STRING,
    URL,
    Slot,
)
from trunkline_server.genui.statements import (
    MAX_STATEMENT_CHARS,
    Found,
    Prose,
    Source,
    StatementReader,
    TooLong,
)
from trunkline_server.genui.syntax import (
    IDENTIFIER,
    NULL,
    Array,
    Binary,
    Call,
    Conditional,
    Expression,
    Function,
    Index,
    Literal,
    Member,
    Number,
    Object,
    Reference,
    Statement,
    Unary,
    write,
)

MAX_STATEMENTS: Final = 2_000
MAX_CHARS: Final = 512 * 1024  # Of what is passed on.
MAX_WARNINGS: Final = 32
MAX_MESSAGE_CHARS: Final = 300
MAX_NAMES: Final = 8  # In one warning.
MAX_DEPTH: Final = 48  # Expressions within each other, and names that stand for names.

FUNCTIONS: Final = re.compile(
    r"(Count|First|Last|Sum|Avg|Min|Max|Filter|Sort|Take|Round|Abs|Floor|Ceil|Each)\Z"
)
STEPS: Final = re.compile(r"(Set|Reset|Run|ToAssistant|OpenUrl)\Z")
_ROOT: Final = "root"

T = TypeVar("T")


class Left(Exception):
    """A part of a statement has to be left out."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AnswerChecker:
    """Of one answer: the `Checker` port. However it is cut into pieces, the same is passed on.

    Args:
        components: by every name that they go by.
        tools: that may be called.
        root: the component with which an answer may begin instead of the name `root`; may be empty.
    """

    def __init__(
        self, components: Mapping[str, Component], tools: frozenset[str], root: str
    ) -> None:
        self.components = components
        self.tools = tools
        self.program = _Program()
        self._root = root
        self._reader = StatementReader()
        self._warnings: list[CompletionWarning] = []
        self._has_prose = False
        self._statements = 0
        self._chars = 0
        self._is_full = False
        self._begins_with_root = False

    @property
    def warnings(self) -> Sequence[CompletionWarning]:
        """What was left out, and why; in order, and at most `MAX_WARNINGS`."""
        return tuple(self._warnings)

    def feed(self, text: str) -> str:
        """More of the answer; returns what may be passed on now: whole lines, with their ends."""
        return self._pass_on(self._reader.feed(text))

    def end(self) -> str:
        """The answer is over; returns the rest. Nothing may be fed after."""
        rest = self._pass_on(self._reader.end())
        missing = self.program.missing()
        names = ", ".join(islice(missing, MAX_NAMES))
        if names:
            self.warn("UNRESOLVED", "", f"these names are used and never defined: {names}")
        if _ROOT not in self.program.values and not self._begins_with_root:
            self.warn("NO_ROOT", _ROOT, "there is no `root`, so nothing is shown")
        return rest

    def warn(self, code: str, name: str, message: str) -> None:
        """Of the statement of this name."""
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(
                CompletionWarning(code=f"GENUI_{code}", field=name, message=message)
            )

    def _pass_on(self, found: Iterator[Found]) -> str:
        lines = [self._line(one) for one in found]
        return "".join(lines)

    def _line(self, found: Found) -> str:
        """What is passed on of a statement: a line, or nothing."""
        match found:
            case Prose():
                if not self._has_prose:
                    self._has_prose = True
                    self.warn("TEXT_DROPPED", "", "text around the user interface was left out")
            case TooLong(name):
                limit = f"it is longer than {MAX_STATEMENT_CHARS} characters"
                self.warn("TOO_LONG", name, limit)
            case Source(tokens, is_cut):
                if self._is_full:
                    return ""
                name = tokens[0].value
                try:
                    statement, is_whole = parse(tokens)
                    if is_cut or not is_whole:
                        self.warn("UNREADABLE", name, "a part of it could not be read")
                    return self._checked(statement)
                except Unreadable as error:
                    code = "TOO_DEEP" if isinstance(error, TooDeep) else "UNREADABLE"
                    self.warn(code, name, str(error))
                except Left as error:
                    self.warn(error.code, name, error.message)
        return ""

    def _checked(self, statement: Statement) -> str:
        name = statement.name
        value = _Check(self, name).definition(statement.value)
        line = write(Statement(name, value)) + "\n"
        self._statements += 1
        self._chars += len(line)
        if self._statements > MAX_STATEMENTS or self._chars > MAX_CHARS:
            self._is_full = True
            self.warn("TOO_LONG", name, "the user interface is too large: the rest was left out")
            return ""
        if self._statements == 1 and isinstance(value, Call):
            self._begins_with_root = value.name == self._root
        self.program.define(name, value)
        return line


class _Program:
    """What was passed on so far, and what is demanded of it."""

    def __init__(self) -> None:
        self.values: dict[str, Expression] = {}
        self._used: dict[str, None] = {}
        self._demands: dict[str, set[Slot]] = {_ROOT: {ANY_COMPONENT}}
        self._refused: dict[str, set[Slot]] = {}  # Of what the present definitions do not suit.
        self._asking: set[tuple[str, Slot]] = set()
        self.depth = 0  # Of what is being looked at.

    def define(self, name: str, value: Expression) -> None:
        self.values[name] = value
        self._refused.pop(name, None)

    def use(self, name: str) -> None:
        self._used[name] = None

    def missing(self) -> Iterator[str]:
        """Names that are used and not defined, in the order of their use. State needs no definition."""
        return (n for n in self._used if n not in self.values and not n.startswith("$"))

    def demands(self, name: str) -> Sequence[Slot]:
        """All that the value of a name has to suit."""
        return tuple(self._demands.get(name, ()))

    def demand(self, name: str, slot: Slot, ask: Callable[[Expression], object]) -> None:
        """From now on, the value of a name suits this slot; whatever it is now, or will be.

        Args:
            ask: raises Left where a value does not.

        Raises:
            Left: what it is now does not.
        """
        if slot in self._demands.get(name, ()):
            return
        key = name, slot
        if key in self._asking or slot in self._refused.get(name, ()):
            raise Left("WRONG_TYPE", f"{name} does not fit there")
        value = self.values.get(name)
        if value is not None:
            self._asking.add(key)
            try:
                ask(value)
            except Left:
                self._refused.setdefault(name, set()).add(slot)
                raise
            finally:
                self._asking.discard(key)
        self._demands.setdefault(name, set()).add(slot)


class _Check:
    """Of one statement's value: what comes back is as much of it as may be passed on.

    Args:
        is_strict: nothing can be left out any more, because the value was passed on before.
    """

    def __init__(self, checker: AnswerChecker, name: str, *, is_strict: bool = False) -> None:
        self._checker = checker
        self._program = checker.program
        self._name = name
        self._is_strict = is_strict
        self._is_tool_call = False  # Is the whole value one?
        self._variables: list[str] = []  # Of `@Each`, where they can be seen.

    def definition(self, value: Expression) -> Expression:
        """Raises: Left."""
        if isinstance(value, Call) and value.name in ("Query", "Mutation"):
            value = self._tool_call(value)
            self._is_tool_call = True
        else:
            value = self._free(value)
        for slot in self._program.demands(self._name):
            value = self.fit(value, slot)
        return value

    # what a parameter takes

    def fit(self, value: Expression, slot: Slot) -> Expression:
        """Raises: Left."""
        self._program.depth += 1
        try:
            if self._program.depth > MAX_DEPTH:
                raise Left("TOO_DEEP", "it is nested too deeply")
            return self._fit(value, slot)
        finally:
            self._program.depth -= 1

    def _fit(self, value: Expression, slot: Slot) -> Expression:
        words = slot.words
        match value:
            case Literal(None):
                return value
            case Literal(literal) if not slot.lists:
                self._fit_literal(literal, slot)
                return value
            case Conditional(condition, then, otherwise):
                condition = self._free(condition)
                then, otherwise = self._or_null(then, slot), self._or_null(otherwise, slot)
                return Conditional(condition, then, otherwise)
            case Binary("&&", left, right):
                return Binary("&&", self._free(left), self._or_null(right, slot))
            case Binary("||", left, right):
                return Binary("||", self._or_null(left, slot), self._or_null(right, slot))
            case Reference(name):
                return self._fit_reference(value, name, slot)
            case Function("Each", arguments) if slot.lists:
                return self._each(arguments, slot.item)
            case Array(items) if slot.lists:
                return Array(tuple(self._kept(items, lambda item: self.fit(item, slot.item))))
            case Array(items) if words & {ANY, ENTRY}:
                return Array(tuple(self._kept(items, lambda item: self.fit(item, slot))))
            case Object() if not slot.lists and words & {OBJECT, ANY, ENTRY}:
                return self._object(value, AN_ENTRY)
            case Call() | Function() if _is_action(value):
                if words & {ACTION, ENTRY} and not slot.lists:
                    return self._free(value)
            case Call("Query" | "Mutation", arguments) if self._is_strict or self._is_tool_call:
                # The data are the tool's, and not what the model has written; but what there is before them is.
                if ANY in words:
                    defaults = [self.fit(default, slot) for default in arguments[2:3]]
                    return Call(value.name, (*arguments[:2], *defaults, *arguments[3:]))
                if slot.takes_computed:
                    return value
            case Call("Query" | "Mutation" as name, _):
                raise Left("WRONG_TYPE", f"{name} is a statement of its own")
            case Call(name, _):
                if not slot.takes_component(name):
                    raise Left("WRONG_TYPE", f"the component {name} is not taken there")
                return self._free(value)
            case Literal() | Array() | Object():
                pass
            case _:
                if slot.takes_computed:
                    return self._free(value)
                raise Left("WRONG_TYPE", "what is known only when it is shown is not taken there")
        raise Left("WRONG_TYPE", "such a value is not taken there")

    def _fit_reference(self, value: Expression, name: str, slot: Slot) -> Expression:
        if name in self._variables or name.startswith("$"):
            is_bound = STATE in slot.words and name.startswith("$") and not slot.lists
            if not is_bound and not slot.takes_computed:
                raise Left("WRONG_TYPE", f"{name}, known only when it is shown, is not taken there")
            return value
        self._program.use(name)
        self._program.demand(
            name, slot, lambda known: _Check(self._checker, name, is_strict=True).fit(known, slot)
        )
        return value

    def _fit_literal(self, value: str | Number | bool | None, slot: Slot) -> None:
        words = slot.words
        if isinstance(value, str):
            if value in slot.choices or words & {STRING, SCALAR}:
                return
            checks = (URL, is_safe_url), (IMAGE, is_safe_image), (MARKDOWN, is_safe_markdown)
            unknown = (ANY, is_safe_anywhere), (ENTRY, is_safe_anywhere)
            for word, is_safe in checks + unknown:
                if word in words:
                    if is_safe(value):
                        return
                    raise Left("UNSAFE_VALUE", f"a value is not safe as {word}")
        elif isinstance(value, bool):
            if words & {BOOLEAN, SCALAR, ANY, ENTRY}:
                return
        elif isinstance(value, Number):
            is_integer = value.text.removeprefix("-").isdigit()
            if words & {NUMBER, SCALAR, ANY, ENTRY} or (INTEGER in words and is_integer):
                return
        raise Left("WRONG_TYPE", "such a value is not taken there")

    # components, actions, tools

    def _component(self, call: Call) -> Expression:
        component = self._checker.components.get(call.name)
        if component is None:
            raise Left("UNKNOWN_COMPONENT", f"there is no component {call.name}")
        given, parameters = call.arguments, component.parameters
        # Looked at first: what is left out anyway should demand nothing of others.
        for p, argument in zip_longest(parameters, given[: len(parameters)]):
            if p.is_required and (argument is None or argument == NULL):
                raise Left("MISSING_ARGUMENT", f"{call.name} has no {p.name}")
        if len(given) > len(parameters):
            most = f"{call.name} takes {len(parameters)} arguments at most"
            self._leave(Left("EXCESS_ARGUMENTS", most))
        arguments: list[Expression] = []
        for p, argument in zip(parameters, given, strict=False):
            try:
                fitted = self.fit(argument, p.slot)
                if p.is_required and fitted == NULL:
                    raise Left("MISSING_ARGUMENT", "nothing is left of it")
                arguments.append(fitted)
            except Left as error:
                what = f"{call.name}.{p.name} takes {p.type}: {error.message}"
                left = Left(error.code, what[:MAX_MESSAGE_CHARS])
                if p.is_required:
                    raise left from error
                self._leave(left)
                arguments.append(NULL)
        while arguments and arguments[-1] == NULL:
            arguments.pop()
        return Call(call.name, tuple(arguments))

    def _action(self, value: Call | Function) -> Expression:
        if isinstance(value, Function):
            return self._step(value)
        match value.arguments:
            case (Array(items), *_):
                return Call("Action", (Array(tuple(self._kept(items, self._step))),))
            case _:
                raise Left("WRONG_TYPE", "Action takes a list of steps")

    def _step(self, value: Expression) -> Expression:
        """Raises: Left."""
        match value:
            case Reference(name) if not value.is_state and name not in self._variables:
                return self._fit_reference(value, name, AN_ACTION)
            case Function("ToAssistant", (message, *context)):
                free = [self._free(argument) for argument in (message, *context[:1])]
                return Function("ToAssistant", tuple(free))
            case Function("OpenUrl", (address, *_)):
                return Function("OpenUrl", (self.fit(address, AN_ADDRESS),))
            case Function("Set", (Reference(name) as target, new, *_)) if name.startswith("$"):
                return Function("Set", (target, self._free(new)))
            case Function("Reset", targets) if targets and all(map(_is_state, targets)):
                return value
            case Function("Run", (Reference() as target, *_)) if not target.is_state:
                self._program.use(target.name)
                return Function("Run", (target,))
        raise Left("WRONG_TYPE", "there is no such step of an action")

    def _tool_call(self, call: Call) -> Expression:
        match call.arguments:
            case (Literal(str() as tool), *rest) if tool in self._checker.tools:
                most = 3 if call.name == "Query" else 1
                arguments = [self._free(argument) for argument in rest[:most]]
                return Call(call.name, (Literal(tool), *arguments))
            case _:
                raise Left("UNKNOWN_TOOL", f"{call.name} names no tool of this library")

    # what is computed, or not yet used anywhere

    def _free(self, value: Expression) -> Expression:
        """What may stand where nothing is demanded, or nothing can be known. Raises: Left."""
        # Where it was passed on before, it was looked at then. Its height is bounded by the parser.
        return value if self._is_strict else self._free_parts(value)

    def _free_parts(self, value: Expression) -> Expression:
        match value:
            case Literal():
                return value
            case Reference(name):
                if name not in self._variables:
                    self._program.use(name)
                return value
            case Array(items):
                return Array(tuple(self._kept(items, self._free)))
            case Object():
                return self._object(value, None)
            case Call("Query" | "Mutation" as name):
                raise Left("WRONG_TYPE", f"{name} is a statement of its own")
            case Call() | Function() if _is_action(value):
                return self._action(value)
            case Call():
                return self._component(value)
            case Function("Each", arguments):
                return self._each(arguments, None)
            case Function(name, arguments):
                if not FUNCTIONS.match(name):
                    self._leave(Left("UNKNOWN_FUNCTION", f"there is no function @{name}"))
                    return NULL
                return Function(name, tuple(self._free_or_null(a) for a in arguments))
            case Member(base, field):
                return Member(self._free(base), field)
            case Index(base, index):
                return Index(self._free(base), self._free_or_null(index))
            case Unary(operator, operand):
                return Unary(operator, self._free_or_null(operand))
            case Binary(operator, left, right):
                return Binary(operator, self._free_or_null(left), self._free_or_null(right))
            case Conditional(condition, then, otherwise):
                parts = [self._free_or_null(part) for part in (condition, then, otherwise)]
                return Conditional(*parts)

    def _object(self, value: Object, slot: Slot | None) -> Expression:
        def entry(pair: tuple[str, Expression]) -> tuple[str, Expression]:
            key, inner = pair
            if not is_safe_key(key):
                raise Left("UNSAFE_VALUE", "a key is the name of something that is run")
            return key, self._free(inner) if slot is None else self.fit(inner, slot)

        return Object(tuple(self._kept(value.entries, entry)))

    def _each(self, arguments: Sequence[Expression], slot: Slot | None) -> Expression:
        match arguments:
            case (items, Literal(str() as variable), template, *_) if IDENTIFIER.match(variable):
                items = self._free(items)
                self._variables.append(variable)
                try:
                    made = self._free(template) if slot is None else self.fit(template, slot)
                finally:
                    self._variables.pop()
                return Function("Each", (items, Literal(variable), made))
            case _:
                raise Left("WRONG_TYPE", "@Each takes a list, a name in quotes, and what to make")

    # what is left out

    def _kept(self, items: Sequence[T], check: Callable[[T], T]) -> Iterator[T]:
        for item in items:
            try:
                yield check(item)
            except Left as error:
                self._leave(error)

    def _or_null(self, value: Expression, slot: Slot) -> Expression:
        try:
            return self.fit(value, slot)
        except Left as error:
            self._leave(error)
            return NULL

    def _free_or_null(self, value: Expression) -> Expression:
        try:
            return self._free(value)
        except Left as error:
            self._leave(error)
            return NULL

    def _leave(self, error: Left) -> None:
        """Raises: Left, where nothing can be left out any more."""
        if self._is_strict:
            raise error
        self._checker.warn(error.code, self._name, error.message)


def _is_action(value: Expression) -> bool:
    match value:
        case Call(name, _):
            return name == "Action"
        case Function(name, _):
            return bool(STEPS.match(name))
    return False


def _is_state(value: Expression) -> bool:
    return isinstance(value, Reference) and value.is_state
