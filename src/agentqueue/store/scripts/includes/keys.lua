-- Names of keys. KEYS holds the keys of one queue, in the order of `queue_keys` in __init__.py.
local level_keys = KEYS -- KEYS[level] is the sorted set of a priority level: 1 urgent, 2 high, 3 normal, 4 low
local dead_key, done_key, paused_key, starts_key, wake_key, stats_key = unpack(KEYS, 5, 10)
local workers_key, reaped_key, sequence_key, sweep_key, drain_key = unpack(KEYS, 11, 15)
local queue = KEYS[3]

-- Prefixes of the keys of a job. The `arq:` keys are named as arq names them.
local JOB, IN_PROGRESS, RETRY, RESULT = 'arq:job:', 'arq:in-progress:', 'arq:retry:', 'arq:result:'
local META, DEAD = 'aq:meta:', 'aq:dead:'
local JOURNAL, SIGNALS, CHILDREN, RETURNS = 'aq:journal:', 'aq:signals:', 'aq:children:', 'aq:returns:'
local STREAM = 'aq:stream:'

-- Keys that all queues share.
local ABORT, QUEUES, CASCADES = 'arq:abort', 'aq:queues', 'aq:cascades'

local LEVEL_SUFFIXES = {':urgent', ':high', '', ':low'}
