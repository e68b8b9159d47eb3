"""From keys to samples; the host runs the steps in chunks."""
