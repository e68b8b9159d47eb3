"""Examples to points of the prior and back, along the probability-flow ODE."""
