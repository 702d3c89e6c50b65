"""Modules that all long-running programs share: settings, logs, probes, signals and error reports."""
