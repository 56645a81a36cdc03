"""Text-generation servers: judges that score by what they write, and the policy whose actions are ranked.

judge  -> calls -> server -> replies     a step in, its raw score out; verdict reads it from what was written
policy -> calls -> server -> replies     a state in, an action out
calls: so many at once and no more, in fair turns, equal ones once     retries: again after what passes
"""
