"""Search: text -> Query (parse, values) -> one SQL statement (sql) -> pages (page). R4 3.1.1."""
