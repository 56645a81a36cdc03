"""One model on several devices: a process for each device, and the engine that drives them."""
