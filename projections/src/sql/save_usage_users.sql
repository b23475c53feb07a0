-- What some users hold now.
insert into usage_users (scope_id, user_id, live, since, left_at)
select * from unnest($1::uuid[], $2::text[], $3::integer[], $4::timestamptz[], $5::timestamptz[])
on conflict (scope_id, user_id) do update set live = excluded.live, since = excluded.since, left_at = excluded.left_at
