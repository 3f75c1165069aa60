"""Where a run logs: metrics.csv, TensorBoard, Weights & Biases."""
