"""What trains an arm: losses, optimizers and the projections of their gradients."""
