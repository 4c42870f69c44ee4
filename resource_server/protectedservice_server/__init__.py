"""The resource server: one verifier behind every front end."""
