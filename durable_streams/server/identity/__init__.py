"""Who may do what: credentials, principals, and the rules about them."""
