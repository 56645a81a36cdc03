"""Text-generation servers: judges that score by what they write, and the policy whose actions are ranked.

judge  -> queue.calls -> server -> completions     a step in, its raw score out; verdict reads it from the completion
policy -> queue.calls -> server -> completions     a state in, an action out
queue.calls: limits calls in flight, in fair turns, equal ones once     retries: repeats calls after transient failures
"""
