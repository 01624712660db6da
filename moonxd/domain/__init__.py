"""Pure decisions. Nothing here does I/O, knows trio, reads a clock or rolls dice: `now` and randomness are arguments."""
