"""JSON files that people edit by hand."""

import json
from pathlib import Path
from typing import Any, Final

from model_store.errors import CheckpointError, one_line

ENCODING: Final = "utf-8-sig"
"""UTF-8 with or without the mark that Windows editors put at its beginning."""


def read_json(path: Path) -> Any:
    """Returns the value in a file.

    Raises:
        CheckpointError: it cannot be read, is not UTF-8 or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding=ENCODING))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {one_line(str(error), 300)}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
