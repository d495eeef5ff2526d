"""Who may do what: tokens, users, and the one function that decides."""
