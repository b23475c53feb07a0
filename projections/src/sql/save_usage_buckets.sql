-- What a page adds to some buckets. $8 counts beyond the seats held before it, $16 beyond the users before it.
insert into usage_buckets as u (scope_id, seconds, bucket, tenant_id, used_before, used_after, peak, seat_ms,
  acquired, denied, released, expired, revoked, users_before, users_after, unique_users)
select scope_id, seconds, bucket, tenant_id, used_before, used_after, peak,
  used_before * seconds::bigint * 1000 + more_ms,
  acquired, denied, released, expired, revoked, users_before, users_after, users_before + more_users
from unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::uuid[], $5::integer[], $6::integer[], $7::integer[],
            $8::bigint[], $9::integer[], $10::integer[], $11::integer[], $12::integer[], $13::integer[],
            $14::integer[], $15::integer[], $16::integer[])
  p (scope_id, seconds, bucket, tenant_id, used_before, used_after, peak, more_ms,
     acquired, denied, released, expired, revoked, users_before, users_after, more_users)
on conflict (scope_id, seconds, bucket) do update set
  used_after = excluded.used_after,
  peak = greatest(u.peak, excluded.peak),
  seat_ms = u.seat_ms + excluded.seat_ms - excluded.used_before * excluded.seconds::bigint * 1000,
  acquired = u.acquired + excluded.acquired,
  denied = u.denied + excluded.denied,
  released = u.released + excluded.released,
  expired = u.expired + excluded.expired,
  revoked = u.revoked + excluded.revoked,
  users_after = excluded.users_after,
  unique_users = u.unique_users + excluded.unique_users - excluded.users_before
