"""Where a model is computed, as the settings say it.

``cuda:0`` is computed in the service's own process. ``cuda:0,cuda:1`` are two workers, each with the whole model.
``cuda:0+cuda:1`` is one worker whose layers are split over two devices (tensor parallel). Both may be combined.
"""

Placement = tuple[tuple[str, ...], ...]
"""The devices of each worker."""


def parse_placement(text: str) -> Placement:
    """The placement that a setting stands for."""
    return tuple(tuple(worker.split("+")) for worker in text.split(","))


def in_this_process(placement: Placement) -> bool:
    return len(placement) == len(placement[0]) == 1


def cpu_processes(placement: Placement) -> int:
    """How many processes share the machine's cores, 1 at least."""
    return max(1, sum(worker.count("cpu") for worker in placement))
