"""The socket side of HTTP: accepts connections, bounds what each may cost, and ends them.

``server`` is uvicorn's server over ``listener``, which accepts. ``protocol`` is uvicorn's protocol with limits, which
come from ``service.http.limits``. ``connections`` knows all open connections and what they are waiting for.
"""
