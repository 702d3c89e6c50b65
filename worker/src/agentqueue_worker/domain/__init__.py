"""Rules about one job: pure, without I/O, clock or randomness."""
