"""A plain FastAPI app that parses a body as JSON and answers with the bytes of a file.

It bounds the cost of a cached score over HTTP: FastAPI and uvicorn cannot answer for less.
``python -m benchmarks.score_cache.echo_server --reply FILE --port N`` runs it.
"""

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response


def create_app(reply: bytes) -> FastAPI:
    app = FastAPI()

    @app.post("/rank_actions")
    async def rank_actions(body: dict[str, Any]) -> Response:
        assert body["items"]
        return Response(reply, media_type="application/json")

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_cache.echo_server")
    parser.add_argument("--reply", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # The same uvicorn settings as in service.serving.
    uvicorn.run(
        create_app(arguments.reply.read_bytes()),
        port=arguments.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
