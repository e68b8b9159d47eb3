"""Log densities: exact by the probability-flow ODE, variational bounds, dequantisation."""
