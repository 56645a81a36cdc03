"""Everything that knows HTTP: routes, middleware, bodies in and out."""
