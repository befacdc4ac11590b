"""The types of everything in `params/`: names, units and allowed values. `bcd.config.load` reads files into them.

The sentence below a field says what it means. A value that does not fit is a `UserError` with file, field and remedy
(`bcd.config.check`). Nothing here imports torch.
"""
