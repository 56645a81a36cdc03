"""The renderer of a checkpoint, whichever template it has."""

from model_store.format.store import Checkpoint
from model_store.text.chat_renderer import ChatRenderer, load_chat_renderer
from model_store.text.renderer import Renderer, load_renderer


def renderer_of(checkpoint: Checkpoint) -> Renderer | ChatRenderer:
    """Loads the renderer that the manifest asks for. Raises as ``load_renderer`` and ``load_chat_renderer``."""
    return load_renderer(checkpoint) if checkpoint.manifest.chat is None else load_chat_renderer(checkpoint)
