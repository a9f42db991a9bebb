"""Run or reach broker, result store and workers: embedded, in the background, or by URL."""
