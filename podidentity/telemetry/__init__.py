"""How the program is watched: logs, metrics, health, and the small HTTP servers that show them."""
