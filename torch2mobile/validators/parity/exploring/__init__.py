"""What a module does with its inputs, and the inputs that are worth trying for it."""
