"""Speed, plots, quantised, workers, report."""
