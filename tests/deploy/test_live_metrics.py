"""Dashboards and rules have data once a service, Redis and Prometheus have run under load."""

import pytest

from deploy.observe.check import table
from deploy.observe.dashboards import read_dashboards
from deploy.observe.draw import draw
from deploy.observe.run import Programs, observe
from testbed.prometheus import find_prometheus
from testbed.redis import find_redis


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_some_traffic_every_panel_has_data_and_every_rule_is_evaluated(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    redis, prometheus = find_redis(), find_prometheus()
    if redis is None or prometheus is None:
        pytest.skip("prometheus or redis-server is not installed (Debian packages of these names)")
    run = observe(Programs(redis, prometheus), services=1, seconds=10, scrape_seconds=1)
    assert not run.wrong, table(run.wrong)
    pictures = draw(read_dashboards(), run.dashboards, run.span, tmp_path_factory.mktemp("pictures"))
    assert [path.name for path in pictures] == [f"dashboard-{name}.png" for name in read_dashboards()]
