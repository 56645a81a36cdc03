"""One model on several devices: a process for each, driven from here."""
