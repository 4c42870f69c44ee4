"""The operator: one reconcile for ProtectedServices, run by kopf."""
