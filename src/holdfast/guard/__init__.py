"""How memories stay honest: who may write and read what, what is poison, and how it is taken back."""
