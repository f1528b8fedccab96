"""What instance types are: their GPUs and drivers, prices and the quota of them."""
