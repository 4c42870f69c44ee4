"""Everything that talks to authorization servers about clients, and the ledger of what was said."""
