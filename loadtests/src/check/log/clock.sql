-- Postgres's clock, and when the latest outage ended.
select (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms,
  (extract(epoch from b.recovered_at) * 1000)::bigint as recovered_ms
from beacon b
