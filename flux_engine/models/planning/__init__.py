"""How a model would run on a card: pure arithmetic from a card, a model and wishes to a Plan. Without torch.

`optimizer.ModelOptimizer` is the way in. device.py alone asks the machine; nothing here changes it.
"""
