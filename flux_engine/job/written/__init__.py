"""How clients write a job: other names of its fields, fields in the wrong place, other tools' syntax in prompts.

In comes what somebody sent, out come the contract's own names, or InvalidInput that shows where a field belongs.
"""
