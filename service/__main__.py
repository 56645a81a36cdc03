"""``python -m service``: loads the models and serves them until a signal to stop.

Little is imported here, so that from its first moments Ctrl-C ends the program in a sentence.
"""

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Final

SIGNALS: Final = {
    signal.SIGINT: (b"interrupted", 130),  # as shells expect of Ctrl-C
    signal.SIGTERM: (b"stopped", 0),  # as after a drain
}


def main() -> int:
    """Runs the command line with signals that end the process until the service is ready. Returns the exit code."""
    for number in SIGNALS:
        signal.signal(number, end_process)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload during start or drain must not end the process
    code: int = import_module("service.command_line").main(sys.argv[1:])
    return code


def end_process(number: int, _frame: FrameType | None) -> None:
    """Ends this process and its workers at once.

    It raises no exception: libraries take one in the middle of their import for an error of their own.
    """
    word, code = SIGNALS[signal.Signals(number)]
    os.write(sys.stderr.fileno(), b"agentprm: " + word + b" before it was ready\n")
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
