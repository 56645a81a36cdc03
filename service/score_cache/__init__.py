"""Raw scores computed once by any replica: a bounded cache in memory, and Redis behind it.

scorer -> tiers -> memory_tier               a hit costs a dictionary look-up
                -> redis_tier                one round trip for what memory lacks; written after the reply
                     redis_client.breaker    Redis down, slow or corrupt: misses, and a probe until it works again
                     redis_client.connections
keys: the identity of a score                values: its bytes in Redis
inspection: counts and purges scores         __main__: the operators' command for both
"""
