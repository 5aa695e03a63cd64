"""Benchmarks: the server beside pgbench with the same SQL, on a clinic-sized database."""
