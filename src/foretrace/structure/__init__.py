"""What is this cell? Its traced step, its Kronecker groups, its Jacobians and their sparsity."""
