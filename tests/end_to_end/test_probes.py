"""Probes answer HEAD as they answer GET, without the body."""

import socket
from urllib.parse import urlsplit

import pytest

from testbed.processes import PATIENCE


def ask(url: str, method: str, path: str) -> tuple[list[str], str]:
    """Returns the lines of a reply's head without what differs each time, and its body."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    with socket.create_connection((host, port), timeout=PATIENCE) as connection, connection.makefile("rwb") as stream:
        stream.write(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        stream.flush()
        head, _, body = stream.read().decode().partition("\r\n\r\n")
    varying = ("date:", "x-request-id:", *(("content-length:",) if path == "/metrics" else ()))
    return [line for line in head.lower().split("\r\n") if not line.startswith(varying)], body


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/models", "/no/such/route"])
def test_head_is_answered_like_get_without_a_body(server: str, path: str) -> None:
    (head, body), (expected, text) = ask(server, "HEAD", path), ask(server, "GET", path)
    assert (head, body) == (expected, "")
    assert text


def test_a_route_that_scores_has_no_head(server: str) -> None:
    head, body = ask(server, "HEAD", "/score_step")
    assert (head[0], body) == ("http/1.1 405 method not allowed", "")
