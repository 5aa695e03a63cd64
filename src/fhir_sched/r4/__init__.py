"""R4 (4.0.1) as data and law: what types there are, how primitives are written, which invariants hold.

Knows nothing of this server's resources, tables or requests.
"""
