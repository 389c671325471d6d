"""What the worker does when it is pressed, in numbers."""
