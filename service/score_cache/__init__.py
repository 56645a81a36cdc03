"""Scores that were computed once, by any replica: a bounded memory in the process, Redis behind it.

scorer -> tiers -> memory               hits cost a look-up in a dictionary
                -> redis_tier           one round trip for what memory lacks, written behind the answers
                     breaker            Redis down, slow or lying: misses, and a probe until it is well again
                     connections        one server, Sentinel or Cluster, from a URL
keys: what a score is bound to          values: how it lies in Redis
inspection: what lies there, its purge  __main__: the operators' command for both
"""
