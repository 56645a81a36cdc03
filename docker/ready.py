"""Health check of the image: fails unless the service in this container is ready."""

import os
import ssl
from urllib.request import urlopen

scheme = "https" if os.environ.get("AGENTPRM_TLS_CERTFILE") else "http"
# The certificate names the host that callers use, not this address; the connection stays in the container.
trusting = ssl.create_default_context()
trusting.check_hostname = False
trusting.verify_mode = ssl.CERT_NONE
url = f"{scheme}://127.0.0.1:{os.environ['AGENTPRM_PORT']}/ready"
urlopen(url, timeout=4, context=trusting).close()  # noqa: S310  (raises on 503)
