-- A stream of tenant $1 that stands elsewhere than its decisions reach: its version (null: it has no row), and how many
-- decisions there are.
select stream_id, s.version, coalesce(e.n, 0)
from (select stream_id, version from streams where tenant_id = $1) s
full join (select stream_id, count(*) as n from events_decision where tenant_id = $1 group by 1) e using (stream_id)
where s.version is distinct from coalesce(e.n, 0)
order by 1 limit 1
