"""The best settings of training at each size: minima of the loss, and how they move with params and tokens."""
