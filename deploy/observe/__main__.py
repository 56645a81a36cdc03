"""``python -m deploy.observe [--draw DIRECTORY]`` checks that every panel and rule has data; exits with 1 if not.

Starts two services with the bundled models, Redis and Prometheus on free ports; needs the program ``prometheus``.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from deploy.observe.check import table
from deploy.observe.dashboards import read_dashboards
from deploy.observe.draw import draw
from deploy.observe.run import Programs, observe
from testbed.prometheus import find_prometheus
from testbed.redis import find_redis

logger = logging.getLogger(__name__)


def main() -> int:
    arguments = _parse()
    logging.basicConfig(level="INFO", format="%(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    # On SIGTERM the exit runs `finally` blocks, so every started program ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    redis, prometheus = find_redis(), find_prometheus()
    if redis is None or prometheus is None:
        logger.error("%s is not installed", "redis-server" if redis is None else "prometheus")
        return 1
    programs = Programs(redis, prometheus)
    run = observe(programs, services=2, seconds=arguments.seconds, scrape_seconds=arguments.scrape_seconds)
    logger.info("%s", table(run.findings))
    if arguments.draw:
        for path in draw(read_dashboards(), run.dashboards, run.span, arguments.draw):
            logger.info("drawn: %s", path)
    logger.info("%d of %d checks failed", len(run.wrong), len(run.findings))
    return 1 if run.wrong else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.observe", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="length of the traffic (default: 60)")
    parser.add_argument("--scrape-seconds", type=float, default=2, help="between two scrapes (default: 2)")
    parser.add_argument("--draw", type=Path, metavar="DIRECTORY", help="draws the dashboards there as PNG")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
