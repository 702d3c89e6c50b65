"""Records and their JSON: pure, without I/O, clock or Redis. Every other room may use it."""
