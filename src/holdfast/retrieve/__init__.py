"""How cubes are found."""
