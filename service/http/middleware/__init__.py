"""Middleware in pure ASGI; ``asgi`` lists the layers, outermost first."""
