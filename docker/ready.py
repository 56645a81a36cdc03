"""The image's health check: fails unless the service of this container says that it is ready."""

import os
from urllib.request import urlopen

urlopen(f"http://127.0.0.1:{os.environ['AGENTPRM_PORT']}/ready", timeout=4)
