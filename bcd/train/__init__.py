"""Training: one job of the DAG, the loop, its learners and their state."""
