"""What a reader does where evidence meets belief: probe, conflict modes, M_R (arXiv 2305.13300). Models need the extra torch."""
