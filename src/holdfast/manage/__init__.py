"""How cubes change over time."""
