"""Chat templates in Jinja, compiled as transformers does, and stopped when they write too much.

The environment is that of ``transformers.utils.chat_template_utils``: the same sandbox, filters and functions. Its
only differences are a fixed date, and no more text than the caller allows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from time import thread_time
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from model_store.errors import one_line
from model_store.text.runs import Unrenderable

NOW: Final = "strftime_now"
_SENTENCE: Final = 300
"""Characters of a template's own sentence that are passed on."""
RENDER_SECONDS: Final = 5.0
"""Seconds of one core for one chat. Some templates look through the whole chat at every turn: 4000 turns take 40 s."""
_PIECES: Final = 64
"""Pieces of text between two looks at the clock."""


class JinjaTemplate:
    """One compiled template; safe to call from several threads.

    ``reads`` are all names in it, its own among them. ``fields`` are all attributes, and all texts that can name one.

    Raises:
        ValueError: the source is no template.
    """

    def __init__(self, source: str, date: str | None) -> None:
        environment = _environment(date)
        try:
            parsed = environment.parse(source)
            self.reads = frozenset(name.name for name in parsed.find_all(nodes.Name))
            self.fields = frozenset(_fields(parsed))
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ValueError(f"it is no Jinja template: {one_line(str(error), _SENTENCE)}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
        variables: Mapping[str, str],
        max_chars: int,
    ) -> str:
        """The text of a chat, as ``apply_chat_template(messages, tools, tokenize=False)`` of transformers makes it.

        Text and time are bounded between the pieces that the template writes. Within one expression they are not.

        Raises:
            Unrenderable: the template refuses the chat or fails, writes more than ``max_chars``, or takes too long.
        """
        written = {"documents": None, "add_generation_prompt": False, **variables}
        try:
            return "".join(_bounded(self._template.generate(messages=messages, tools=tools, **written), max_chars))
        except (Unrenderable, RecursionError, MemoryError):
            raise
        except Exception as error:
            why = one_line(str(error), _SENTENCE) or type(error).__name__
            raise Unrenderable(f"the checkpoint's chat template refuses this chat: {why}") from error


def can_write(source: str, token: str) -> bool:
    """Whether a template's text holds a token, or a piece that one can begin with, as in ``'<|' + role + '|>'``."""
    pieces = (token[:length] + end for length in range(1, len(token)) for end in ("'", '"', "{"))
    return token in source or any(piece in source for piece in pieces)


def _fields(template: nodes.Template) -> Iterator[str]:
    yield from (read.attr for read in template.find_all(nodes.Getattr))
    yield from (text.value for text in template.find_all(nodes.Const) if isinstance(text.value, str))


def _bounded(pieces: Iterator[str], max_chars: int) -> Iterator[str]:
    written, begun = 0, thread_time()
    for number, piece in enumerate(pieces):
        written += len(piece)
        if number % _PIECES == 0 and thread_time() - begun > RENDER_SECONDS:
            raise Unrenderable(
                f"the checkpoint's chat template computes for more than {RENDER_SECONDS:.0f} seconds on this chat: "
                "it has too many turns for it"
            )
        if written > max_chars:
            raise Unrenderable(f"the checkpoint's chat template makes more than {max_chars} characters of this chat")
        yield piece


def _environment(date: str | None) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    now = None if date is None else datetime.fromisoformat(date)
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "dict": _Dict(),
        "namespace": _Namespace,
        **({} if now is None else {NOW: now.strftime}),
    }
    return environment


class _Generation(Extension):
    """The tag that marks what the model says. It changes no text."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own way)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

    def _unchanged(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """``dict`` without the attributes of a class, which could lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's ``namespace`` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *others = args
        written = dict(*others, **kwargs)
        for name in written:
            _refuse_private(name)
        Namespace.__init__(self, written)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"a namespace cannot hold {name!r}")


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
