-- Which pools have a session that could have ended `p_slack_ms` ago or longer, at most `p_limit` of them: the deadline has
-- passed, and after an outage a whole TTL. Asked twice a second, so it reads the beginning of an index (`seats_by_due`), and
-- no more than 100,000 that are due: left to itself, the planner walks through every seat there is.
create function lapsed_pools(p_slack_ms bigint, p_limit bigint) returns setof uuid
language sql stable
set search_path = public, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
  with overdue as materialized (
    select stream_id, deadline, ttl_ms from seats
    where due < now() - make_interval(secs => p_slack_ms / 1000.0)
    order by due limit 100000
  )
  select distinct o.stream_id
  from overdue o, beacon b
  where greatest(o.deadline, b.recovered_at + make_interval(secs => o.ttl_ms / 1000.0))
    < now() - make_interval(secs => p_slack_ms / 1000.0)
  limit p_limit
$$;

comment on function lapsed_pools is 'Pools with a session that could have ended so many milliseconds ago';
grant execute on function lapsed_pools to license_service;
