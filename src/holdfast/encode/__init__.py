"""How experience becomes cubes."""
