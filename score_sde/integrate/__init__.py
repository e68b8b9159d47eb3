"""General integration of ordinary differential equations: adaptive by diffrax, or on a grid."""
