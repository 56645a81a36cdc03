"""Reference models of the engine's tests, built once for each test file."""

import pytest
from transformers import Qwen2Config

from tests.service.engine.references import FAMILIES, Reference
from tests.service.engine.sharp_models import sharp_model


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.model_type)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(sharp_model(request.param))


@pytest.fixture(scope="module")
def qwen2() -> Reference:
    return Reference(sharp_model(Qwen2Config))
