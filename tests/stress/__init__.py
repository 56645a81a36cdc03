"""The whole service under more than it can take (``overload``) and with everything failing around it (``chaos``)."""
