"""Speed beside peers, in one run, as ratios: to the best peer and to what the hardware allows."""
