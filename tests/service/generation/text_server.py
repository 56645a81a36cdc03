"""A text-generation server in its own process that speaks both wire forms and answers as it is scripted.

``python -m tests.service.generation.text_server`` prints its port. What it writes is a closed form of the prompt
unless ``/script`` holds something else; ``/gate`` keeps answers back; ``/wait`` answers once so much has happened.
"""

import json
import math
import socket
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from zlib import crc32

Written = list[tuple[str, dict[str, float]]]
"""Tokens, each with the probabilities of the likeliest tokens at its position."""
LOOK_SECONDS = 0.02  # how often a kept-back request looks whether its client is still there


def log_odds(prompt: str) -> float:
    """Returns the log odds that the server gives a prompt, in [-4, 4]."""
    return crc32(prompt.encode()) % 8001 / 1000 - 4


def verdict_on(prompt: str) -> Written:
    """Returns a verdict: Yes in two spellings, No, and a tenth of the probability for another token."""
    yes = 0.9 / (1 + math.exp(-log_odds(prompt)))
    return [("Yes", {"Yes": 0.6 * yes, " Yes": 0.4 * yes, "No": 0.9 - yes, "Maybe": 0.1})]


class Happened:
    """Counts: ``asked``, ``running`` now, ``most`` at once, and those whose client ``left``."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.reset()

    def reset(self) -> None:
        self.counts: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.script: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def count(self, **more: int) -> None:
        with self.changed:
            self.counts.update(more)
            self.counts["most"] = max(self.counts["most"], self.counts["running"])
            self.changed.notify_all()

    def wait(self, wanted: dict[str, int]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: all(self.counts[name] >= least for name, least in wanted.items()), 30)

    def state(self) -> dict[str, Any]:
        return {**{name: self.counts[name] for name in ("asked", "running", "most", "left")}, "requests": self.requests}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    happened: ClassVar[Happened]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        happened = self.happened
        if self.path == "/script":
            happened.script += body
        elif self.path == "/gate":
            (happened.gate.set if body else happened.gate.clear)()
        elif self.path == "/wait":
            happened.wait(body)
        elif self.path == "/reset":
            happened.reset()
        else:
            self._generate(body)
            return
        self._send(200, happened.state())

    def _generate(self, body: dict[str, Any]) -> None:
        happened = self.happened
        happened.requests.append({"path": self.path, "key": self.headers["authorization"], "body": body})
        scripted = happened.script.pop(0) if happened.script else {}
        happened.count(asked=1, running=1)
        try:
            if not self._kept_back():
                happened.count(left=1)
                self.close_connection = True
                return
        finally:
            happened.count(running=-1)
        self._answer(body, scripted)

    def _kept_back(self) -> bool:
        """Waits for the gate; False if the client leaves before it opens."""
        while not self.happened.gate.wait(LOOK_SECONDS):
            self.connection.settimeout(LOOK_SECONDS)
            try:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    return False
            except TimeoutError:
                continue
            finally:
                self.connection.settimeout(None)
        return True

    def _answer(self, body: dict[str, Any], scripted: dict[str, Any]) -> None:
        """``scripted``: a status with headers and body, ``cut``: how many bytes of the reply are sent, ``written``."""
        if "status" in scripted:
            self._send(scripted["status"], scripted.get("body", {"error": "no"}), scripted.get("headers", {}))
            return
        reply = scripted.get("reply", (in_chat_form if "messages" in body else in_text_form)(body, scripted))
        self._send(200, reply, cut=scripted.get("cut"))

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut])
        self.close_connection = cut is not None


def in_chat_form(body: dict[str, Any], scripted: dict[str, Any]) -> dict[str, Any]:
    prompt = "\n".join(message["content"] for message in body["messages"])
    written, finish = _written(prompt, scripted, body["max_tokens"])
    content = [
        {"token": text, "logprob": _log(likeliest[text]), "top_logprobs": [
            {"token": other, "logprob": _log(share)} for other, share in likeliest.items()
        ]}
        for text, likeliest in written
    ]  # fmt: skip
    message = {"role": "assistant", "content": scripted.get("content", "".join(text for text, _ in written))}
    choice = {"index": 0, "message": message, "finish_reason": scripted.get("finish", finish)}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": content}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written), "total_tokens": len(prompt + "x")}
    return {"id": "c", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}


def in_text_form(body: dict[str, Any], scripted: dict[str, Any]) -> list[dict[str, Any]]:
    written, finish = _written(body["inputs"], scripted, body["parameters"]["max_new_tokens"])

    def token(text: str, share: float) -> dict[str, Any]:
        return {"id": crc32(text.encode()), "text": text, "logprob": _log(share), "special": False}

    details = {
        "finish_reason": scripted.get("finish", finish),
        "generated_tokens": len(written),
        "seed": None,
        "prefill": [],
        "tokens": [token(text, likeliest[text]) for text, likeliest in written],
        "top_tokens": [[token(*other) for other in likeliest.items()] for _, likeliest in written],
    }
    return [{"generated_text": "".join(text for text, _ in written), "details": details}]


def _written(prompt: str, scripted: dict[str, Any], limit: int) -> tuple[Written, str]:
    written = scripted.get("written", verdict_on(prompt))
    return written[:limit], "length" if len(written) > limit else "stop"


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -9999.0


def main() -> None:
    Handler.happened = Happened()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
