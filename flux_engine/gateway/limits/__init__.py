"""How much a user may ask for, and in what order tasks of all users reach the queue."""
