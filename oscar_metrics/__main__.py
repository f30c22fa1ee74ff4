"""`python -m oscar_metrics`, the same as `oscar-metrics`."""

from oscar_metrics.cli import main

main()
