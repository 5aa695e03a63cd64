"""SMART Scheduling Links: what a tenant shows to everyone, as configuration and as lines of NDJSON."""
