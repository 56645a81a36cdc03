"""Who may ask and how often; knows no HTTP."""
