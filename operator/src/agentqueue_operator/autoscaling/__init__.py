"""Scaling decisions. The package is pure, and both hosts use it."""
