"""Scaling decisions: pure, the same for both hosts."""
