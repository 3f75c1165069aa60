"""Loggers: metrics.csv, TensorBoard, Weights & Biases."""
