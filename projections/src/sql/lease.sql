-- Takes or renews the lease for $1 for $2 seconds; no row: somebody else has it.
insert into projection_lease as l (holder, until) values ($1, clock_timestamp() + make_interval(secs => $2))
on conflict (singleton) do update set holder = excluded.holder, until = excluded.until
where l.holder = excluded.holder or l.until < clock_timestamp()
returning 1
