"""How fast the resource server is beside what a user could pick instead; `data_plane.py` is the command."""
