"""Parts that every long-running program shares: settings, logs, probes, signals and error reports."""
