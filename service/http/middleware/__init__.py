"""Pure ASGI, outermost first."""
