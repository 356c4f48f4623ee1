"""What waiting costs, measured on the real server."""
