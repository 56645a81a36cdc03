"""Bodies that are wrong in as costly a way as their size allows, made from the fields of the contract.

Each kind comes in two sizes: filled up to the limit of bytes, and holding just as many JSON values and objects as are
let through, padded with text. The second is parsed and validated up to its fault, which comes last.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from agentprm.wire.size import MAX_OBJECTS, MAX_VALUES

SCORE: Final = "/score_step"
RANK: Final = "/rank_actions"
BYTES: Final = 4 * 1024 * 1024

ITEM: Final = '{"items":[{'
MESSAGES: Final = ITEM + '"messages":['
STEPS: Final = ITEM + '"task":"t","steps":['
CANDIDATES: Final = ITEM + '"task":"t","candidates":['
PARTS: Final = MESSAGES + '{"role":"user","content":['
CALLS: Final = MESSAGES + '{"role":"assistant","tool_calls":['
TURN: Final = '{"role":"user","content":"a"}'
TOOLS: Final = ITEM + '"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"a"}],"tools":['
TOOL: Final = '{"function":{"name":"f"}}'
CALL: Final = '{"function":{"name":"f","arguments":"{}"}}'


class Hostile(NamedTuple):
    """One body."""

    kind: str
    path: str
    content: bytes


class Fill(NamedTuple):
    """A list or object whose entries are repeated; ``last`` makes the body wrong."""

    kind: str
    path: str
    before: str
    entry: str
    last: str
    after: str = "]}]}"


FILLS: Final = (
    *(Fill(f"items of {entry}", SCORE, '{"items":[', entry, entry, "]}") for entry in ("0", '""', "[]", "{}", "null")),
    Fill("items, the last one wrong", SCORE, '{"items":[', '{"task":"t","steps":[{"action":"a"}]}', "0", "]}"),
    Fill("empty steps", SCORE, STEPS, "{}", "{}"),
    Fill("steps of numbers", SCORE, STEPS, "0", "0"),
    Fill("steps with a wrong action", SCORE, STEPS, '{"action":1}', "0"),
    Fill("steps, the last one wrong", SCORE, STEPS, '{"observation":"o","action":"a"}', '{"action":""}'),
    Fill("messages with a wrong key", SCORE, MESSAGES, '{"role":"user","x":1}', "0"),
    Fill("messages with a wrong role", SCORE, MESSAGES, '{"role":"x"}', "0"),
    Fill("messages, the last one wrong", SCORE, MESSAGES, TURN, '{"role":"user","x":1}'),
    Fill("shortest messages, the last one wrong", SCORE, MESSAGES, '{"role":"user"}', "0"),
    Fill("messages of no parts, the last one wrong", SCORE, MESSAGES, '{"role":"user","content":[]}', "0"),
    Fill("messages with empty unknown fields", SCORE, MESSAGES, '{"role":"user","a":null,"b":null}', "0"),
    Fill("messages that are valid and no trajectory", SCORE, MESSAGES, TURN, TURN),
    Fill("messages of 64 items", SCORE, MESSAGES, TURN + "]},{" + '"messages":[' + TURN, "0"),
    Fill("parts, the last one wrong", SCORE, PARTS, '{"type":"text","text":""}', "0", "]}]}]}"),
    Fill("parts of numbers", SCORE, PARTS, "0", "0", "]}]}]}"),
    Fill("tool calls, the last one wrong", SCORE, CALLS, CALL, "0", "]}]}]}"),
    Fill("empty tool calls", SCORE, CALLS, "{}", "0", "]}]}]}"),
    Fill("calls with objects, the last one wrong", SCORE, CALLS, CALL.replace('"{}"', "{}"), "0", "]}]}]}"),
    Fill("parts, the last one an image", SCORE, PARTS, '{"type":"text","text":""}', '{"type":"image"}', "]}]}]}"),
    Fill(
        "arguments of many values",
        SCORE,
        CALLS + '{"function":{"name":"f","arguments":{"a":[',
        "0",
        "1e999",
        "]}}}]}]}]}",
    ),
    Fill(
        "messages that think, the last one wrong", SCORE, MESSAGES, '{"role":"user","thinking":""}', '{"role":"tool"}'
    ),
    Fill("tools, the last one wrong", SCORE, TOOLS, TOOL, "0"),
    Fill("empty tools", SCORE, TOOLS, "{}", "{}"),
    Fill("a tool of many values", SCORE, TOOLS + '{"function":{"name":"f","a":[', "0", "1e999", "]}}]}]}"),
    Fill("objects that hold nothing", SCORE, MESSAGES + '{"role":"user","a":[', '{"b":0}', "true", "]}]}]}"),
    Fill("candidates of numbers", RANK, CANDIDATES, "0", "0"),
    Fill("candidates of texts, the last one wrong", RANK, CANDIDATES, '"a"', "0"),
    Fill("candidates of messages, the last one wrong", RANK, CANDIDATES, '{"role":"assistant","content":"a"}', "0"),
    Fill("candidates of both kinds, the last one wrong", RANK, CANDIDATES, '"a",{"role":"assistant"}', "0"),
    Fill("stop texts", RANK, ITEM + '"task":"t","sample":{"n":1,"stop":[', '""', "0", "]}}]}"),
    Fill("a list for a text", SCORE, ITEM + '"task":[', "0", "0"),
    Fill("lists for a text", SCORE, ITEM + '"task":[', "[]", "0"),
    Fill("objects for a text", SCORE, PARTS, '{"a":{}}', "0", "]}]}]}"),
    Fill("an unread list of a message", SCORE, MESSAGES + '{"role":"user","audio":[', "[]", "0", "]}]}]}"),
    Fill("unread objects of a message", SCORE, MESSAGES + '{"role":"user","audio":[', "{}", "0", "]}]}]}"),
    Fill("an object as a candidate", RANK, CANDIDATES + "{", '"a":0', '"b":0', "}]}]}"),
    Fill("a list as a candidate", RANK, CANDIDATES + "[", "0", "0", "]]}]}"),
    Fill("the same unknown field", SCORE, "{", '"a":0', '"b":0', "}"),
    Fill("lists that end nowhere", SCORE, STEPS, '{"action":"a"}', '{"action":"a"', ""),
    Fill("nests of arrays", SCORE, STEPS, "[" * 150 + "]" * 150, "0"),
    Fill("nests of objects", SCORE, STEPS, '{"a":' * 100 + "0" + "}" * 100, "0"),
    Fill("long whole numbers", SCORE, STEPS, "9" * 4000, "0"),
    Fill("long fractions", SCORE, STEPS, "0." + "3" * 4000, "0"),
    Fill("large exponents", SCORE, STEPS, "1e308", "0"),
)


ALONE: Final = "items refused one by one"
"""How the kinds of bodies begin that are answered with an error for each item."""


def hostile_bodies() -> Iterator[Hostile]:
    """Yields every body, in both sizes where there are two."""
    for fill in FILLS:
        yield filled(fill)
        yield counted(fill)
    yield from unknown_fields()
    yield from long_values()
    yield from wrong_items()


def filled(fill: Fill) -> Hostile:
    """The body with as many entries as its bytes allow."""
    room = BYTES - len(fill.before + fill.last + fill.after)
    return Hostile(fill.kind, fill.path, _content(fill, room // (len(fill.entry) + 1)))


def counted(fill: Fill) -> Hostile:
    """The body with as many entries as are let through, after a text that makes it as long as its bytes allow."""
    objects = fill.entry.count("{")
    values = objects + fill.entry.count("[") + fill.entry.count(",") + 1
    room = BYTES - len(fill.before + fill.last + fill.after)
    most = min((MAX_VALUES - 100) // values, (MAX_OBJECTS - 100) // max(1, objects), room // (len(fill.entry) + 1))
    content = _content(fill, most)
    padding = b'{"model":"' + b"m" * max(0, BYTES - len(content) - 20) + b'",'
    return Hostile(f"{fill.kind}, as many as are let through", fill.path, padding + content[1:])


def _content(fill: Fill, entries: int) -> bytes:
    return (fill.before + f"{fill.entry}," * entries + fill.last + fill.after).encode()


def unknown_fields() -> Iterator[Hostile]:
    """Yields bodies with many different fields that no object of the contract has."""
    for count, size in ((400_000, "many"), (MAX_VALUES - 100, "as many as are let through")):
        fields = ",".join(f'"{number:x}":0' for number in range(count))
        for where, before, after in (
            ("of the request", "{", "}"),
            ("of an item", ITEM, "}]}"),
            ("of a step", STEPS + "{", "}]}]}"),
            ("of a message", MESSAGES + '{"role":"user",', "}]}]}"),
            ("of a tool call", CALLS + "{", "}]}]}]}"),
        ):
            yield Hostile(f"unknown fields {where}, {size}", SCORE, (before + fields + after).encode()[:BYTES])


def wrong_items() -> Iterator[Hostile]:
    """Yields bodies whose items are wrong at their ends, and are to be refused one by one."""
    step = '{"observation":"' + "o" * 80 + '","action":"a"},'
    turn = '{"role":"user","content":"' + "x" * 80 + '"},'
    names = ",".join(f'"{number:x}":0' for number in range(1900))
    for kind, item in {
        "steps": f'{{"task":"t","steps":[{step * 370}0]}}',
        "turns": f'{{"messages":[{turn * 370}{{"role":"x"}}]}}',
        "unknown fields": f'{{"task":"t",{names}}}',
        "long texts": f'{{"task":"{"t" * 60_000}"}}',
    }.items():
        yield Hostile(f"{ALONE}, {kind}", SCORE, f'{{"on_error":"item","items":[{",".join([item] * 64)}]}}'.encode())


def long_values() -> Iterator[Hostile]:
    """Yields bodies with one value that is as long as the body may be."""
    text = "x" * (BYTES - 200)
    texts = {"text": text, "escapes": "\\n" * (len(text) // 2), "escaped characters": "\\u00e9" * (len(text) // 6)}
    for name, long in texts.items():
        yield Hostile(f"an id of {name}", SCORE, f'{ITEM}"id":"{long}","task":"t","steps":[0]}}]}}'.encode())
        yield Hostile(f"a task of {name}", SCORE, f'{ITEM}"task":"{long}","steps":[0]}}]}}'.encode())
        yield Hostile(f"a field name of {name}", SCORE, f'{{"{long}":0}}'.encode())
        yield Hostile(f"a role of {name}", SCORE, f'{MESSAGES}{{"role":"{long}"}}]}}]}}'.encode())
        yield Hostile(f"a model of {name}", SCORE, f'{{"model":"{long}","items":[0]}}'.encode())
    for name, number in {"digits": "9", "fraction": "0." + "3", "zeros": "0", "exponent": "1e9"}.items():
        long_number = number + number[-1] * (BYTES - 200)
        yield Hostile(f"a number of {name}", SCORE, f'{{"deadline_ms":{long_number},"items":[]}}'.encode())
    yield Hostile("arrays in arrays", SCORE, b"[" * BYTES)
    yield Hostile("objects in objects", SCORE, b'{"a":' * (BYTES // 5))
    yield Hostile("no JSON", SCORE, b"x" * BYTES)
    yield Hostile("white space", SCORE, b" " * BYTES)
    yield Hostile("broken UTF-8", SCORE, b'{"model":"' + b"\xff" * (BYTES - 100) + b'"}')
