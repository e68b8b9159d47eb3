"""What exists for CPUs only, and acts only where JAX has no accelerator."""
