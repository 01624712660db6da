"""Pure decisions. Nothing here does I/O, knows trio, reads a clock or rolls dice: those are arguments."""
