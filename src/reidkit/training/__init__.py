"""Training: batches, objectives, the loop, and the folder that a run keeps."""
