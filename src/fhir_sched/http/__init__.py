"""HTTP: bytes in, bytes out. The only place that knows headers, media types and status lines. R4 3.1.0 (http)."""
