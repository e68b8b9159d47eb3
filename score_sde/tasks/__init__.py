"""What can be trained, each a task of one trainer.  To add one: a class as of ``base.Task``, and a line in
``TASKS`` of ``score_sde/experiment``."""
