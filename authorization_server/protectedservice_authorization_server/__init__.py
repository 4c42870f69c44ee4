"""The authorization server of quickstart and tests: django-oauth-toolkit with what it leaves to the deployment.

For development and evaluation only, see README.md beside this package.
"""
