"""The only place that connects to PostgreSQL."""
