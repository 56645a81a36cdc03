"""The baseline over HTTP: a plain FastAPI handler around the same model, as a first version would be.

It parses and renders a request, pads its sequences into one batch under a mask and runs one forward at a time. It
validates nothing and reports no usage. ``python -m benchmarks.service.plain_server --store DIR --port N``.
"""

import argparse
import threading
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from torch.nn.utils.rnn import pad_sequence

from benchmarks.workloads.requests import NAME, as_call
from benchmarks.workloads.tokens import Call
from model_store.format.store import Store
from model_store.network.model import RewardModel, load_model
from model_store.text.renderer import Renderer, load_renderer


def create_app(model: RewardModel, renderer: Renderer) -> FastAPI:
    app = FastAPI()
    forward_lock = threading.Lock()

    def score(path: str, body: dict[str, Any]) -> list[float]:
        call = as_call(renderer, path, [body])
        with forward_lock:
            return score_padded(model, call)

    # The benchmarks send one item a request.
    @app.post("/rank_actions")
    def rank_actions(body: dict[str, Any]) -> dict[str, Any]:
        raws = score("/rank_actions", body)
        ranking = [{"index": index, "raw": raw} for index, raw in enumerate(raws)]
        return {"results": [{"ranking": sorted(ranking, key=lambda entry: -entry["raw"])}]}

    @app.post("/score_step")
    def score_step(body: dict[str, Any]) -> dict[str, Any]:
        return {"results": [{"raw": score("/score_step", body)[0]}]}

    @app.post("/score_trajectory")
    def score_trajectory(body: dict[str, Any]) -> dict[str, Any]:
        return {"results": [{"steps": [{"raw": raw} for raw in score("/score_trajectory", body)]}]}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


@torch.inference_mode()
def score_padded(model: RewardModel, call: Call) -> list[float]:
    """Scores all sequences of a call in one batch, padded on the right under an attention mask."""
    rows = [torch.tensor(ids) for ids in call.token_ids]
    token_ids_BT = pad_sequence(rows, batch_first=True)
    mask_BT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    raw_BT = model(token_ids_BT, attention_mask=mask_BT)
    return [score for row, reads in enumerate(call.reads) for score in raw_BT[row, reads].tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.plain_server")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = Store(arguments.store).resolve(NAME)
    app = create_app(load_model(checkpoint, "cpu", "float32"), load_renderer(checkpoint))
    uvicorn.run(app, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
