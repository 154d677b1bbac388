"""Networks at work: files of our own and of others, opened as something that turns images into embeddings."""
