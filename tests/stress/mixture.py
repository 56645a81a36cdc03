"""Makes requests of every kind, right and wrong, and says which answers each may get."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.stress.connection import request_bytes
from tests.stress.expected import CANDIDATES, Played, RequestItem, as_body

SCORED: Final = "scored"
ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ALWAYS: Final = frozenset({SCORED, "internal", "overloaded", "too_long"})
"""Answers to a right request while engines fail and the queue is short.

``too_long``: memory ran out again when its sequence was tried alone.
"""
FULL: Final = frozenset({"overloaded"})
"""Answer before a request's body is read."""
ITEM: Final[Mapping[str, Any]] = {"task": "Craft.", "steps": [{"observation": "", "action": "get 1 stick"}]}


@dataclass(frozen=True, slots=True)
class HangUp:
    """The caller hangs up after this many bytes and seconds."""

    sent: int
    seconds: float
    rudely: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request and the answers that it may get: ``allowed`` holds codes of errors, or ``SCORED``."""

    kind: str
    request_id: str
    request: bytes
    allowed: frozenset[str]
    route: str = ""
    items: Sequence[RequestItem] = ()
    pinned: str = ""
    """Version that the request names; empty if it takes the default model."""
    last: bool = False
    """True if the request asks the service to close the connection."""
    hang_up: HangUp | None = None


@dataclass(slots=True)
class _Draft:
    """A right request, before it is spoilt."""

    route: str
    items: list[RequestItem]
    headers: dict[str, str]
    model: str | None = None
    allowed: frozenset[str] = ALWAYS
    hang_up: HangUp | None = None
    body: bytes = b""
    method: str = "POST"
    pinned: str = field(default="")


class Mixture:
    """Makes request number N of a seed, the same in whatever order the numbers come.

    Args:
        keys: API keys with the scope ``score``.
        versions: references that can be served; the first is served at the start.
    """

    def __init__(self, forest: Sequence[Played], keys: Sequence[str], versions: Sequence[str], seed: int) -> None:
        self._forest = forest
        self._keys = keys
        self._versions = versions
        self._seed = seed

    def request(self, number: int) -> Planned:
        random = Random(f"{self._seed} {number}")
        kind = random.choices(list(_SPOIL), [weight for weight, _ in _SPOIL.values()])[0]
        draft = self._right(random)
        _SPOIL[kind][1](self, draft, random)
        body = draft.body or as_body(draft.route, self._forest, draft.items, draft.model)
        return self._planned(kind, f"{self._seed}-{number}", draft, body, last=random.random() < 0.2)

    def right(self, route: str) -> Planned:
        """Returns a right request, which must be scored."""
        draft = self._right(Random(route), route)
        draft.allowed = frozenset({SCORED})
        return self._planned("fresh", "fresh", draft, as_body(route, self._forest, draft.items, None), last=False)

    def _planned(self, kind: str, request_id: str, draft: _Draft, body: bytes, *, last: bool) -> Planned:
        headers = {**draft.headers, "x-request-id": request_id} | ({"connection": "close"} if last else {})
        return Planned(
            kind=kind,
            request_id=request_id,
            request=request_bytes(draft.method, draft.route, body, headers),
            allowed=draft.allowed,
            route=draft.route,
            items=draft.items,
            pinned=draft.pinned,
            last=last,
            hang_up=draft.hang_up,
        )

    def _right(self, random: Random, route: str | None = None) -> _Draft:
        route = route or random.choice(ROUTES)
        headers = {"authorization": f"Bearer {random.choice(self._keys)}"}
        if random.random() < 0.7:
            headers["x-priority"] = random.choice(("interactive", "bulk"))
        return _Draft(route, [self._item(random, route) for _ in range(random.randint(1, 4))], headers)

    def _item(self, random: Random, route: str) -> RequestItem:
        played = random.randrange(len(self._forest))
        steps = len(self._forest[played].trajectory.steps)
        if route == "/rank_actions":
            return RequestItem(played, steps, tuple(random.sample(range(CANDIDATES), random.randint(1, CANDIDATES))))
        return RequestItem(played, random.randint(1, steps))

    def _named(self, draft: _Draft, random: Random) -> None:
        """Names the model by alias, by bare name, or by a version that may not be served at the moment."""
        draft.model = random.choice(("demo", self._versions[0].partition("@")[0], *self._versions))
        if draft.model in self._versions:
            draft.pinned = draft.model
            draft.allowed |= {"model_not_found"}

    def _hurried(self, draft: _Draft, random: Random) -> None:
        draft.headers["x-deadline-ms"] = str(random.randint(1, 150))
        draft.allowed |= {"deadline_exceeded"}

    def _hung_up(self, draft: _Draft, random: Random) -> None:
        """Hangs up before the end of the request, while it is scored, or while it is answered."""
        draft.body = as_body(draft.route, self._forest, draft.items, None)
        whole = len(draft.body) + 300
        sent = random.choice((random.randint(1, whole), whole + 1000))
        draft.hang_up = HangUp(sent, random.choice((0.0, random.uniform(0, 0.1))), random.random() < 0.5)

    def _without_key(self, draft: _Draft, random: Random) -> None:
        key = random.choice(self._keys)
        wrong = (None, "Bearer", "Bearer ", f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-1]}", "Bearer é")
        given = random.choice(wrong)
        draft.headers.pop("authorization")
        if given is not None:
            draft.headers["authorization"] = given
        draft.allowed = frozenset({"unauthorized"})

    def _above_its_scope(self, draft: _Draft, random: Random) -> None:
        draft.route = random.choice(("/admin/reload", "/admin/unload", "/admin/load", "/admin/alias"))
        draft.body = json.dumps({"model": "demo"}).encode()
        draft.allowed = frozenset({"forbidden"})

    def _unknown_model(self, draft: _Draft, random: Random) -> None:
        draft.model = random.choice(("nobody", "textcraft-demo@999", "../demo", "demo@"))
        draft.allowed = FULL | {"model_not_found"}

    def _malformed(self, draft: _Draft, random: Random) -> None:
        right = as_body(draft.route, self._forest, draft.items, None)
        code, draft.route, draft.body = random.choice(_malformed_bodies(draft.route, right, random))
        draft.allowed = FULL | {code}

    def _bad_headers(self, draft: _Draft, random: Random) -> None:
        name, value = random.choice(
            (("x-deadline-ms", "soon"), ("x-deadline-ms", "0"), ("x-deadline-ms", "-5"), ("x-priority", "first"))
        )
        draft.headers[name] = value
        draft.allowed = FULL | {"invalid"}

    def _lost(self, draft: _Draft, random: Random) -> None:
        draft.method, draft.route, code = random.choice(
            (("GET", draft.route, "method_not_allowed"), ("POST", f"{draft.route}/", "not_found"))
        )
        draft.allowed = frozenset({code})


def _malformed_bodies(route: str, right: bytes, random: Random) -> list[tuple[str, str, bytes]]:
    """Returns wrong requests: the code that is due, the route and the body."""
    rank = {**ITEM, "candidates": []}
    wrong: list[tuple[str, str, Any]] = [
        ("invalid", route, {"items": []}),
        ("invalid", route, {"items": "all"}),
        ("invalid", route, []),
        ("invalid", "/score_step", {"items": [ITEM], "unknown": 1}),
        ("invalid", "/score_step", {"items": [{**ITEM, "steps": []}]}),
        ("invalid", "/score_step", {"items": [{**ITEM, "task": "\ud800"}]}),
        ("invalid", "/rank_actions", {"items": [rank]}),
        ("too_long", "/score_step", {"items": [ITEM] * 65}),
        ("too_long", "/rank_actions", {"items": [{**ITEM, "candidates": ["get 1 stick"] * 65}]}),
        ("too_long", "/score_trajectory", {"items": [{**ITEM, "task": "stick " * 600}]}),
    ]
    bodies = [(code, path, json.dumps(body).encode()) for code, path, body in wrong]
    cut = right[: random.randrange(1, len(right))]
    return [*bodies, ("invalid", route, cut), ("invalid", route, b"\xff" + right), ("invalid", route, b"[" * 5000)]


_SPOIL: Final[dict[str, tuple[float, Callable[[Mixture, _Draft, Random], None]]]] = {
    "right": (52, lambda *_: None),
    "right, model named": (8, Mixture._named),
    "short deadline": (12, Mixture._hurried),
    "hang-up": (12, Mixture._hung_up),
    "malformed body": (8, Mixture._malformed),
    "wrong key": (3, Mixture._without_key),
    "wrong header": (2, Mixture._bad_headers),
    "admin without scope": (1, Mixture._above_its_scope),
    "unknown model": (1, Mixture._unknown_model),
    "wrong method or path": (1, Mixture._lost),
}
"""Weight of each kind of request, and the function that makes a right request one of this kind."""
