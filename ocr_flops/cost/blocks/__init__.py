"""Parts that towers are made of: attention cores, masks, positions, norms, experts."""
