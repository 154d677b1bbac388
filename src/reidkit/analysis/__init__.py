"""From embeddings to results, whoever made them: ROC, calibration, intervals, breakdowns, comparisons."""
