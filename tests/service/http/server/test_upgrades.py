"""A client that offers another protocol is answered as if it had offered nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from testbed.processes import PATIENCE
from tests.service.http.server.serving import connect, exchange, read_reply, request, serving, status, told

BODY = b"GET /smuggled HTTP/1.1\r\n\r\n"
OFFERS = {
    "Java, Ktor": "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n",
    "curl": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "WebSocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "TLS": "Connection: upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\n",
    "two offers": "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
}
JAVA = """
import java.net.*; import java.net.http.*;
public class Ask {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 2; i++) {
            HttpRequest post = HttpRequest.newBuilder(URI.create(given[0]))
                .POST(HttpRequest.BodyPublishers.ofString("hello")).build();
            System.out.println(client.send(post, HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
"""


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_the_body_arrives_and_the_connection_goes_on(offer: str) -> None:
    with serving() as server, connect(server.address) as connection:
        for sent in (request("/first", BODY, headers=offer), request("/second", BODY)):
            connection.sendall(sent)
            answer = read_reply(connection)
            assert (status(answer), told(answer)["body"]) == (200, BODY.decode())
        assert server.app.asked == ["/first", "/second"]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_it_does_not_matter_how_the_request_is_cut_into_packets(offer: str) -> None:
    sent = request("/", BODY, headers=offer, close=True)
    with serving() as server:
        for cut in range(1, len(sent), 7):
            answer = exchange(server.address, sent[:cut], sent[cut:])
            assert told(answer)["body"] == BODY.decode()
        assert set(server.app.asked) == {"/"}


def test_chunks_and_requests_sent_ahead_arrive() -> None:
    chunked = f"POST /a HTTP/1.1\r\n{OFFERS['curl']}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode()
    get = request("/b", method="GET", headers=OFFERS["WebSocket"])
    with serving() as server:
        exchange(server.address, chunked + get + request("/c", close=True))
        assert server.app.asked == ["/a", "/b", "/c"]


def test_an_offer_does_not_get_round_the_limits() -> None:
    lines = OFFERS["curl"] + "A: b\r\n" * 10
    with serving(headers=10, pipelined=4) as server:
        assert status(exchange(server.address, request("/", headers=lines))) == 431
        ahead = b"".join(request("/", headers=OFFERS["curl"]) for _ in range(100))
        assert exchange(server.address, ahead).count(b"HTTP/1.1 200") <= 5


def test_the_real_clients_get_their_replies(tmp_path: Path) -> None:
    java, curl = shutil.which("java"), shutil.which("curl")
    if not (java and curl and shutil.which("javac")):
        pytest.skip("there is no JDK or no curl")
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    with serving() as server:
        url = f"http://{server.address[0]}:{server.address[1]}/"
        for command in ([java, str(source), url], [curl, "-sS", "--http2", "-d", "hello", url]):
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE * 3)
            assert '"body": "hello"' in done.stdout
        assert server.app.asked == ["/"] * 3
