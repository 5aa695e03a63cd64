"""Who may do what: tokens, scopes, compartments, the record of it. SMART App Launch 2.2."""
