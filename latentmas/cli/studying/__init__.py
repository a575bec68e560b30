"""Commands of studies: sweeps, baselines, costs, analyses."""
