from pathlib import Path

import pytest
from transformers import Qwen2Config

from tests.model_store.authors import make_classifier
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    make_classifier(tmp_path / "source", Qwen2Config, CHATML_TOKENS, CHATML)
    return tmp_path / "source"
