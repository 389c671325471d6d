"""What the RunPod SDK leaves open, closed from outside.

sdk        the SDK itself, without what a worker never uses: imported before anything else here is called
senders    progress, and the parts of a streamed answer
results    delivery that is retried, and what need not be printed
scaler     jobs begun when they come, not at the SDK's next look
draining   a prompt end that loses no job

Each piece first checks that the SDK still has what it builds on; otherwise it logs so and leaves the SDK as it is.
"""
