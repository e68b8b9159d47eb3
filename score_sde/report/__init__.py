"""What is known of a run as pages, tables and pictures."""
