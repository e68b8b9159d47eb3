"""The machine: devices as a mesh, progress of long work, compiled programs on disk."""
